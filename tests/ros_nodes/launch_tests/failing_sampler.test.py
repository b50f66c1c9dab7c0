"""A sampler that raises, and one whose answer is not finite."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import launch_testing
import launch_testing.asserts
import node_actions
from launch import LaunchDescription
from launch.substitutions import LaunchConfiguration
from lifecycle_msgs.msg import TransitionEvent
from policy_peer import STEP, observation
from policy_test_case import PolicyTestCase

FAULTY_POLICY_NODE = Path(__file__).resolve().parents[1] / "faulty_policy_node.py"


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    node = node_actions.policy(program=(str(FAULTY_POLICY_NODE), LaunchConfiguration("folder")))
    return node_actions.description(node), {"node": node}


class TestFailingSampler(PolicyTestCase):
    def fault(self, test_args: dict[str, str], name: str) -> Path:
        """A fault that lasts while its file is there."""
        file = Path(test_args["folder"]) / name
        file.touch()
        self.addCleanup(file.unlink, missing_ok=True)
        return file

    def test_one_that_raises_leads_through_error_processing_and_back(self, test_args) -> None:
        policy, start = self.policy, self.start
        events = self.graph.listen(TransitionEvent, "/policy/transition_event")
        policy.observe(start, observation(0))
        policy.chunk(0)
        events.clear()
        fault = self.fault(test_args, "raise")
        policy.observe(start + 20 * STEP, observation(0))
        self.graph.spin_until(
            lambda: events and events[-1].goal_state.label == "unconfigured", "the node is unconfigured"
        )
        states = [event.goal_state.label for event in events]
        assert states == ["deactivating", "errorprocessing", "unconfigured"]
        policy.wait_for_message("the policy raised RuntimeError: out of patience")
        assert not policy.transition("configure"), "the warm-up raises too"
        fault.unlink()
        policy.activate()
        policy.observe(start + 40 * STEP, observation(0))
        assert policy.chunk(1)[0] == start + 40 * STEP
        policy.wait_for_message("active")

    def test_a_chunk_that_is_not_finite_is_never_sent(self, test_args, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        fault = self.fault(test_args, "nan")
        self.policy.observe(self.start, observation(0))
        self.wait_for("non_finite_chunks", 1)
        said = "the policy's chunk is not finite, not sent"
        assert process.wait_for_output(lambda output: said in output, timeout=60)
        assert self.policy.state() == "active"
        fault.unlink()
        self.policy.observe(self.start + STEP, observation(0))
        assert self.policy.chunk(0)[0] == self.start + STEP


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_it_ends_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
