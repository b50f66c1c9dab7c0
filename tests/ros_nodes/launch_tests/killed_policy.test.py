"""The policy's process is killed in the middle of an episode."""

from __future__ import annotations

import os
import signal
import unittest
from typing import Any

import launch_testing
import launch_testing.asserts
import launch_testing.tools
import node_actions
import numpy as np
from launch import LaunchDescription
from policy_peer import PolicyPeer
from ros_graph import RosGraph
from sensor_msgs.msg import JointState

RESTARTED = node_actions.policy()


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    policy = node_actions.policy()
    simulator = node_actions.simulator(max_steps=10**6)
    context = {"policy": policy, "simulator": simulator}
    return node_actions.description(*context.values()), context


class TestKilledPolicy(unittest.TestCase):
    def test_the_pusher_holds_its_last_point_and_a_restarted_policy_resumes(
        self, launch_service, policy, proc_info, proc_output
    ) -> None:
        graph = RosGraph()
        self.addCleanup(graph.close)
        joints = graph.listen(JointState, "/joint_states")
        peer = PolicyPeer(graph)
        chunks = peer.chunks
        peer.activate()
        graph.spin_until(lambda: joints, "the simulator is up")
        start = list(joints[-1].position)

        def acts(since: int) -> bool:
            return len(chunks) >= since + 3 and not np.allclose(joints[-1].position, start, atol=20)

        graph.spin_until(lambda: acts(0), "the policy moves the pusher")

        killed = node_actions.Process(policy, proc_info, proc_output)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait_for_shutdown(timeout=60)
        before = len(joints)

        def stands_still() -> bool:
            newest = np.array([list(message.position) for message in joints[-20:]])
            return len(joints) >= before + 40 and bool(np.ptp(newest, axis=0).max() < 0.5)

        graph.spin_until(stands_still, "the simulator goes on and the pusher stands still")
        start = held = list(joints[-1].position)
        # On a busy machine the last chunk may be too late to be executed at all.
        last_points = [list(chunk.points[-1].positions) for chunk in chunks]
        assert any(np.allclose(held, point, atol=0.5) for point in last_points), (held, last_points)

        graph.spin_until(lambda: not graph.node.count_publishers("/policy/predicted_path"), "DDS gives it up")
        before = len(chunks)
        with launch_testing.tools.launch_process(launch_service, RESTARTED, proc_info, proc_output):
            peer.activate()
            graph.spin_until(lambda: acts(before), "the restarted policy moves the pusher")


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_only_the_killed_one_was_killed(self, proc_info, policy, simulator) -> None:
        launch_testing.asserts.assertExitCodes(proc_info, [-signal.SIGKILL], policy)
        launch_testing.asserts.assertExitCodes(proc_info, [0], simulator)
        launch_testing.asserts.assertExitCodes(proc_info, [0], RESTARTED)
