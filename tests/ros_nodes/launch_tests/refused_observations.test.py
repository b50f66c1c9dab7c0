"""Observations that no policy should act on."""

from __future__ import annotations

import struct
import time
import unittest
from collections.abc import Callable
from typing import Any

import launch_testing
import launch_testing.asserts
import node_actions
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PolygonStamped
from launch import LaunchDescription
from policy_peer import STEP, PolicyPeer, observation
from policy_test_case import PolicyTestCase
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState

FRAME = "world"


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    node = node_actions.policy(keypoints__frame_id=FRAME)
    return node_actions.description(node), {"node": node}


def with_value(index: int, value: float) -> np.ndarray:
    values = observation(0)
    values[index] = value
    return values


Malformed = Callable[[PolicyPeer, int], None]


def nan_joint(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(stamp, [np.nan, 100.0])


def infinite_keypoint(policy: PolicyPeer, stamp: int) -> None:
    policy.send_keypoints(stamp, with_value(3, np.inf)[:18], FRAME)


def too_few_keypoints(policy: PolicyPeer, stamp: int) -> None:
    policy.send_keypoints(stamp, np.zeros(16), FRAME)


def too_few_positions(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(stamp, [100.0])


def far_out_of_range(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(stamp, [100.0, 3000.0])


def missing_joint(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(stamp, [1.0, 2.0], ("elbow", "pusher_x"))


def wrong_frame(policy: PolicyPeer, stamp: int) -> None:
    policy.send_keypoints(stamp, observation(0)[:18], "elsewhere")


def huge_polygon(policy: PolicyPeer, stamp: int) -> None:
    """A million points, serialised: a message of as many Python objects would keep the sender too."""
    empty = PolygonStamped()
    empty.header.stamp, empty.header.frame_id = policy.stamp(stamp), FRAME
    serialized = bytes(serialize_message(empty))
    assert serialized.endswith(bytes(4)), "the number of points comes last"
    policy.keypoints.publish(serialized[:-4] + struct.pack("<I", 10**6) + bytes(12 * 10**6))


def many_joints(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(stamp, np.zeros(5_000), tuple(f"joint_{number}" for number in range(5_000)))


def before_all_clocks(policy: PolicyPeer, stamp: int) -> None:
    policy.send_pusher(-(10**9), [100.0, 100.0])


def stamp_that_wraps(policy: PolicyPeer, stamp: int) -> None:
    message = JointState(name=["pusher_x", "pusher_y"], position=[100.0, 100.0])
    message.header.stamp = Time(sec=2**31 - 1, nanosec=2**32 - 1)
    policy.pusher.publish(message)


MALFORMED = (
    nan_joint,
    infinite_keypoint,
    too_few_keypoints,
    too_few_positions,
    far_out_of_range,
    missing_joint,
    wrong_frame,
    before_all_clocks,
    stamp_that_wraps,
)


class TestRefusedObservations(PolicyTestCase):
    def refuse(self, process: node_actions.Process, send: Malformed, *, source: str, reason: str) -> None:
        """A message is refused, counted and named; the next good observation is acted on."""
        named = f"{source}: observation refused ({reason}): "
        send(self.policy, self.start)
        self.wait_for(f"rejected_observations.{source}.{reason}", 1)
        assert self.counted("rejected_observations") == 1
        # Throttled to one in 2 s, it may be that of the test before.
        assert process.wait_for_output(lambda output: named in output, timeout=60)
        assert not self.policy.chunks
        self.policy.observe(self.start + 10 * STEP, observation(0), FRAME)
        assert self.policy.chunk(0)[0] == self.start + 10 * STEP

    def test_nan(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output),
            nan_joint,
            source="pusher",
            reason="not_finite",
        )

    def test_infinity(self, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        self.refuse(process, infinite_keypoint, source="keypoints", reason="not_finite")

    def test_wrong_number_of_points(self, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        self.refuse(process, too_few_keypoints, source="keypoints", reason="length")

    def test_wrong_number_of_positions(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output),
            too_few_positions,
            source="pusher",
            reason="length",
        )

    def test_far_out_of_range(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output),
            far_out_of_range,
            source="pusher",
            reason="range",
        )

    def test_missing_joint(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output), missing_joint, source="pusher", reason="joint"
        )

    def test_wrong_frame(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output),
            wrong_frame,
            source="keypoints",
            reason="frame",
        )

    def test_a_million_points(self, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        self.refuse(process, huge_polygon, source="keypoints", reason="size")

    def test_thousands_of_joints(self, node, proc_info, proc_output) -> None:
        self.refuse(
            node_actions.Process(node, proc_info, proc_output), many_joints, source="pusher", reason="size"
        )

    def test_stamp_before_all_clocks(self, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        self.refuse(process, before_all_clocks, source="pusher", reason="time")

    def test_stamp_that_no_message_can_hold(self, node, proc_info, proc_output) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        self.refuse(process, stamp_that_wraps, source="pusher", reason="time")

    def test_the_last_stamp_that_a_message_can_hold_is_one(self) -> None:
        last = 2**31 * 10**9 - 1
        self.policy.observe(last, observation(0), FRAME)
        assert self.policy.chunk(0)[0] == last
        self.policy.observe(self.start, observation(0), FRAME)
        assert self.policy.chunk(1)[0] == self.start
        assert self.counted("rejected_observations") == 0

    def test_stamps_out_of_order(self) -> None:
        self.policy.observe(self.start, observation(0), FRAME)
        self.policy.chunk(0)
        self.policy.observe(self.start - 2 * STEP, observation(0), FRAME)
        self.wait_for("rejected_observations.keypoints.order", 1)
        self.wait_for("rejected_observations.pusher.order", 1)
        assert len(self.policy.chunks) == 1
        self.policy.observe(self.start + 10 * STEP, observation(0), FRAME)
        assert self.policy.chunk(1)[0] == self.start + 10 * STEP

    def test_ten_thousand_malformed_messages_leave_the_node_as_it_was(
        self, node, proc_info, proc_output
    ) -> None:
        process = node_actions.Process(node, proc_info, proc_output)
        printed = process.output.count("observation refused")
        sent = 0

        def send_until(refused: int) -> bool:
            nonlocal sent
            for _ in range(100):
                sent += 1
                MALFORMED[sent % len(MALFORMED)](self.policy, self.start + sent * STEP)
                if sent % 5 == 0:
                    time.sleep(0.002)  # or newer messages would replace older ones in the queues
            return self.counted("rejected_observations") >= refused

        self.graph.spin_until(lambda: send_until(2_000), "2,000 refusals")
        memory, threads = process.memory, process.threads
        self.graph.spin_until(lambda: send_until(12_000), "12,000 refusals", timeout=300)
        assert process.memory - memory < 5e6
        assert process.threads == threads
        assert not self.policy.chunks
        # Throttled: a warning of each kind every 2 s, not one for each message.
        assert process.output.count("observation refused") - printed < 2000
        end = self.start + (sent + 10) * STEP
        self.policy.observe(end, observation(0), FRAME)
        assert self.policy.chunk(0)[0] == end


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_it_ends_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
