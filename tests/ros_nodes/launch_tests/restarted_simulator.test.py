"""The simulator is killed and restarted under a running policy."""

from __future__ import annotations

import os
import signal
import unittest
from typing import Any

import launch_testing
import launch_testing.asserts
import launch_testing.tools
import node_actions
from launch import LaunchDescription
from policy_peer import PolicyPeer
from ros_graph import RosGraph
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger

RESTARTED = node_actions.simulator(mode="lockstep", seed=8)
STEPS = 24


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    policy = node_actions.policy(synchronous=True)
    simulator = node_actions.simulator(mode="lockstep", seed=8)
    context = {"policy": policy, "simulator": simulator}
    return node_actions.description(*context.values()), context


class TestRestartedSimulator(unittest.TestCase):
    def test_the_policy_starts_anew_noises_included(
        self, launch_service, simulator, proc_info, proc_output
    ) -> None:
        graph = RosGraph()
        self.addCleanup(graph.close)
        statuses: list[list[float]] = []
        graph.node.create_subscription(
            Float64MultiArray,
            "/pusht_simulator/episode",
            lambda message: statuses.append(list(message.data)),
            1000,
        )
        PolicyPeer(graph).activate()

        def episode() -> list[list[float]]:
            graph.call(Trigger, "/pusht_simulator/reset")
            graph.spin_until(lambda: statuses and statuses[-1][1] >= STEPS, f"{STEPS} steps are executed")
            return [status for status in statuses if status[1] <= STEPS]

        first = episode()
        assert [status[1] for status in first] == list(range(STEPS + 1))
        killed = node_actions.Process(simulator, proc_info, proc_output)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait_for_shutdown(timeout=60)
        graph.spin_until(lambda: not graph.node.count_publishers("/clock"), "DDS gives it up")
        statuses.clear()
        with launch_testing.tools.launch_process(launch_service, RESTARTED, proc_info, proc_output):
            assert episode() == first


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_only_the_killed_one_was_killed(self, proc_info, policy, simulator) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, [0], policy)
        launch_testing.asserts.assertExitCodes(proc_info, [-signal.SIGKILL], simulator)
        launch_testing.asserts.assertExitCodes(proc_info, [0], RESTARTED)
