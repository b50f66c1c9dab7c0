"""A checkpoint that is missing, or that was replaced by a truncated file, when the node is configured."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.asserts
import node_actions
from launch import LaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from policy_peer import STEP, PolicyPeer, observation
from ros_graph import RosGraph


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    replaced = PathJoinSubstitution([LaunchConfiguration("folder"), "replaced.safetensors"])
    node = node_actions.policy(checkpoint=replaced)
    return node_actions.description(node), {"node": node}


class TestTruncatedCheckpoint(unittest.TestCase):
    def test_configure_fails_and_a_good_file_mends_it(self, test_args, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        graph = RosGraph()
        self.addCleanup(graph.close)
        policy = PolicyPeer(graph)
        whole = Path(test_args["checkpoint"]).read_bytes()
        replaced = Path(test_args["folder"]) / "replaced.safetensors"

        def replace(content: bytes) -> None:
            new = replaced.with_suffix(".new")
            new.write_bytes(content)
            os.replace(new, replaced)

        def refuses(reason: str) -> None:
            assert not policy.transition("configure")
            policy.wait_for_message(reason)
            logged = f"cannot configure: {replaced}: {reason}"
            assert process.wait_for_output(lambda output: logged in output, timeout=60)
            assert policy.state() == "unconfigured"

        refuses("no such checkpoint file")
        replace(whole)
        policy.activate()
        assert policy.transition("deactivate")
        assert policy.transition("cleanup")
        replace(whole[:-1000])
        refuses("truncated or not a safetensors file")
        replace(whole)
        policy.activate().observe(STEP, observation(0))
        assert policy.chunk(0)[0] == STEP


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_it_ends_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
