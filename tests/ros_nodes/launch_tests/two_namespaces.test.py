"""Two policy nodes in one graph."""

from __future__ import annotations

import unittest

import launch_testing
import launch_testing.asserts
import node_actions
import numpy as np
from launch import LaunchDescription
from policy_peer import STEP, PolicyPeer, observation
from ros_graph import RosGraph


def generate_test_description() -> LaunchDescription:
    return node_actions.description(
        node_actions.policy(namespace="left"), node_actions.policy(namespace="right", seed=1)
    )


class TestTwoNamespaces(unittest.TestCase):
    def test_each_node_minds_its_own_business(self) -> None:
        graph = RosGraph()
        self.addCleanup(graph.close)
        left, right = (PolicyPeer(graph, namespace).activate() for namespace in ("left", "right"))
        left.observe(STEP, observation(0))
        assert left.chunk(0)[0] == STEP
        right.observe(3 * STEP, observation(0))
        assert right.chunk(0)[0] == 3 * STEP
        assert left.transition("deactivate")
        assert right.state() == "active"
        assert [len(chunk.points) for chunk in right.chunks] == [8], "the stop is for the left one alone"
        graph.spin_until(lambda: len(left.chunks) == 2, "the stop")
        assert [len(chunk.points) for chunk in left.chunks] == [8, 1]
        assert not np.allclose(left.chunk(0)[1], right.chunk(0)[1])


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_they_end_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
