from __future__ import annotations

from typing import Any

import pytest
from message_examples import EXAMPLES, rosbags_message

from policy.robot.description import Source
from policy.robot.times import SECOND
from ros_nodes.recorder.topic_monitor import TopicMonitor

STEP = SECOND // 10
ARM = Source(name="arm", topic="joint_states", type="sensor_msgs/JointState", joints=("a", "b"))


def joint_state(stamp_ns: int, **changes: Any) -> Any:
    stamp = {"sec": stamp_ns // SECOND, "nanosec": stamp_ns % SECOND}
    values = EXAMPLES["sensor_msgs/JointState"][0] | {"header": {"stamp": stamp, "frame_id": ""}}
    return rosbags_message("sensor_msgs/JointState", values | changes)


def heard(
    seconds: float, period_ns: int = STEP, monitor: TopicMonitor | None = None, **changes: Any
) -> tuple[TopicMonitor, int]:
    """A monitor that was sent good messages for a while, and the time of the last."""
    monitor = monitor or TopicMonitor(ARM, STEP, may_lead=False)
    now = 100 * SECOND
    for _ in range(round(seconds * SECOND / period_ns) + 1):
        now += period_ns
        monitor.add(joint_state(now, **changes), now)
    return monitor, now


def test_a_source_that_keeps_the_rate_is_good() -> None:
    monitor, now = heard(3)
    assert monitor.fault(now) is None
    assert monitor.rate() == pytest.approx(10)
    assert (monitor.messages, monitor.refused) == (31, 0)


def test_a_silent_source_is_named() -> None:
    monitor = TopicMonitor(ARM, STEP, may_lead=False)
    assert monitor.fault(0) == "arm: nothing received on joint_states"
    monitor, now = heard(3)
    assert monitor.fault(now + SECOND) == "arm: nothing new for 1.00 s, max_age is 0.50 s"


def test_a_source_that_is_too_slow_is_named() -> None:
    monitor, now = heard(3, period_ns=STEP * 3 // 2)
    assert monitor.fault(now) == "arm: 6.7 Hz, slower than the 10 Hz of the demonstrations"
    any_rate, now = heard(3, period_ns=STEP * 3 // 2, monitor=TopicMonitor(ARM, None, may_lead=False))
    assert any_rate.fault(now) is None


def test_a_source_must_be_heard_for_a_while() -> None:
    monitor, now = heard(0.5)
    assert monitor.fault(now) == "arm: heard for less than 1 s"


def test_stamps_that_stand_still_are_no_measurements() -> None:
    monitor, now = heard(3)
    for tenth in range(1, 51):
        monitor.add(joint_state(now), now + tenth * STEP // 10)
    assert monitor.fault(now + 59 * STEP // 10) == "arm: nothing new for 0.59 s, max_age is 0.50 s"


@pytest.mark.parametrize(
    ("ahead", "fault"),
    [
        (-3 * SECOND, "3.000 s old, max_age is 0.500 s (is use_sim_time set as in the sources?)"),
        (3 * SECOND, "stamped 3.000 s ahead of this machine's clock"),
        (-2 * STEP, "stamped 0.100 s before its predecessor"),
    ],
)
def test_wrong_stamps_are_named(ahead: int, fault: str) -> None:
    monitor, now = heard(3)
    monitor.add(joint_state(now + STEP + ahead), now + STEP)
    assert monitor.fault(now + STEP) == f"arm: {fault}"
    assert monitor.refused == 1


def test_a_simulated_clock_may_lag_behind_the_stamps() -> None:
    monitor, now = heard(3, monitor=TopicMonitor(ARM, STEP, may_lead=True))
    monitor.add(joint_state(now + 2 * SECOND), now + STEP)
    assert monitor.fault(now + STEP) is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": ["a", "c"]}, "joint 'b' is missing"),
        ({"position": [0.1]}, "1 numbers in position, need 2"),
        ({"position": [0.1, float("nan")]}, "number 1 is not finite"),
    ],
)
def test_messages_that_no_observation_can_be_made_of_are_named(changes: dict[str, Any], fault: str) -> None:
    monitor, now = heard(3, **changes)
    assert monitor.fault(now) == f"arm: {fault}"
    assert monitor.refused == monitor.messages == 31


def test_a_fault_is_forgotten_once_it_is_over() -> None:
    monitor, now = heard(3)
    monitor.refuse("size: 80000 bytes", now)
    assert monitor.fault(now) == "arm: size: 80000 bytes"
    for _ in range(30):
        now += STEP
        monitor.add(joint_state(now), now)
    assert monitor.fault(now) is None


def test_a_clock_that_is_set_back_starts_anew() -> None:
    monitor, _ = heard(3)
    monitor, now = heard(3, monitor=monitor)
    assert monitor.fault(now) is None
    assert monitor.refused == 0


def test_the_largest_gap_is_that_of_the_episode() -> None:
    monitor, now = heard(3)
    monitor.restart()
    for late in (0, STEP, 7 * STEP, 8 * STEP):
        monitor.add(joint_state(now + SECOND + late), now + SECOND + late)
    assert monitor.largest_gap_ns == 6 * STEP
    assert monitor.messages == 4


def test_commands_that_cannot_be_read_are_named_however_late_they_are_due() -> None:
    kind = "trajectory_msgs/JointTrajectory"
    command = Source(name="command", topic="t", type=kind, joints=("a", "b"))
    monitor = TopicMonitor(command, None, may_lead=False)
    monitor.add(rosbags_message(kind, EXAMPLES[kind][0]), 100 * SECOND)
    assert monitor.refusal(100 * SECOND) is None
    monitor.add(rosbags_message(kind, EXAMPLES[kind][0] | {"points": []}), 100 * SECOND)
    assert monitor.refusal(100 * SECOND) == "command: trajectory has no points"
