"""Trajectories that are no trajectories: each is counted and named, and the next good one is executed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.serialization import serialize_message
from trajectory_msgs.msg import JointTrajectory

TOPIC = "pusher_controller/joint_trajectory"


def test_impossible_times_and_a_million_points_are_refused_and_counted(
    simulate: Callable[..., Any], graph: Any
) -> None:
    simulator = simulate(mode="lockstep")
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    simulator.reset(0)

    def counts() -> dict[str, str]:
        statuses = diagnostics[-1].status if diagnostics else []
        return {pair.key: pair.value for status in statuses for pair in status.values}

    for number, stamp in enumerate(
        (Time(sec=-5), Time(sec=-(2**31), nanosec=2**32 - 1), Time(sec=5, nanosec=10**9)), start=1
    ):
        message = simulator.trajectory([[100.0, 100.0]])
        message.header.stamp = stamp
        message.points[0].time_from_start.sec = 2**31 - 1  # not over yet, wherever it began
        simulator.publisher.publish(message)
        graph.spin_until(
            lambda number=number: counts().get(f"rejected_trajectories.{TOPIC}.time") == str(number),
            f"{stamp} is refused",
        )
    empty = bytes(serialize_message(JointTrajectory(joint_names=["pusher_x", "pusher_y"])))
    assert empty.endswith(bytes(4)), "the number of points comes last"
    # A point without numbers is 24 bytes of zeros; as a message, a million of them would keep the sender too.
    simulator.publisher.publish(empty[:-4] + struct.pack("<I", 10**6) + bytes(24 * 10**6))
    graph.spin_until(
        lambda: counts().get(f"rejected_trajectories.{TOPIC}.size") == "1", "its size is refused"
    )
    output = graph.output(simulator.process)
    assert f"{TOPIC}: trajectory refused (time): stamp is impossible: -5 s is before all clocks" in output
    assert f"{TOPIC}: trajectory refused (size): " in output
    start = simulator.time
    simulator.send([[200.0, 210.0]] * 4, start)
    simulator.wait_for_step(4)
    assert counts()["rejected_trajectories"] == "4"
