from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_recordings import START, header, joint_state, message

from policy.robot.description import Robot
from policy.robot.fit import observation_history, task_of
from policy.robot.messages import measurement
from policy.robot.parameters import robot_from_parameters
from training.importing.control_steps import LATEST, ControlSteps, StepError, Stretch

MS = 1_000_000
PERIOD = 100 * MS
JOINTS = ["shoulder", "elbow"]


def make_robot(command: str = "sensor_msgs/JointState", **changes: Any) -> Robot:
    return robot_from_parameters(
        {
            "observation_sources": ["arm", "gripper"],
            "arm": {"topic": "joints", "type": "sensor_msgs/JointState", "joints": JOINTS, "max_age": 0.2},
            "gripper": {"topic": "width", "type": "std_msgs/Float32", "max_age": 0.2},
            "command": {"topic": "target", "type": command, "joints": JOINTS, "max_age": 0.35},
            **changes,
        }
    )


class Player:
    """Feeds messages at times in ms, and keeps the stretches."""

    def __init__(self, robot: Robot, observed: tuple[int, ...] | None = None) -> None:
        self.robot = robot
        self.task = task_of(robot, name="reach", rate=10.0, sizes={})
        self.steps = ControlSteps(robot, self.task, observed=observed)
        self.stretches: list[Stretch] = []

    def observe(self, ms: int, value: float) -> None:
        """A message of each source."""
        now = START + ms * MS
        arm, gripper = self.robot.sources
        self.stretches += self.steps.observe(arm, joint_state(now, [value, -value]), now)
        self.stretches += self.steps.observe(gripper, message("std_msgs/Float32", data=value / 2), now)

    def command(self, ms: int, value: float, arrival: int | None = None) -> None:
        assert self.robot.command is not None
        now = START + ms * MS
        late = now if arrival is None else START + arrival * MS
        self.steps.command(self.robot.command, joint_state(now, [value, -value]), late)

    def trajectory(self, ms: int, points: dict[int, float]) -> None:
        """Points by the time from the start in ms."""
        assert self.robot.command is not None
        now = START + ms * MS
        made = [
            message(
                "trajectory_msgs/JointTrajectoryPoint",
                positions=np.array([value, -value]),
                velocities=np.zeros(0),
                accelerations=np.zeros(0),
                effort=np.zeros(0),
                time_from_start=message("builtin_interfaces/Duration", sec=0, nanosec=due * MS),
            )
            for due, value in points.items()
        ]
        sent = message("trajectory_msgs/JointTrajectory", header=header(now), joint_names=JOINTS, points=made)
        self.steps.command(self.robot.command, sent, now)

    def end(self) -> Stretch:
        """The only stretch."""
        self.stretches += self.steps.end()
        (stretch,) = self.stretches
        return stretch


def first(values: np.ndarray) -> list[float]:
    return values[:, 0].tolist()


def test_a_step_is_an_observation_and_the_command_in_force_at_the_end_of_its_period() -> None:
    player = Player(make_robot())
    for step in range(4):
        player.observe(100 * step, step)
        player.command(100 * step + 20, 10 + step)
        player.command(100 * step + 90, 20 + step)
    stretch = player.end()
    np.testing.assert_array_equal(stretch.observations, [[s, -s, s / 2] for s in range(4)])
    np.testing.assert_array_equal(stretch.actions, [[20 + s, -20 - s] for s in range(4)])
    assert (stretch.start_ns, stretch.end) == (START, "")
    assert stretch.observations.dtype == stretch.actions.dtype == np.float32


def test_a_command_at_the_end_of_a_period_belongs_to_the_next() -> None:
    player = Player(make_robot())
    for step in range(3):
        player.command(100 * step, step)
        player.observe(100 * step, step)
    assert first(player.end().actions) == [0, 1, 2]


def test_a_command_may_arrive_later_than_observations_of_its_time() -> None:
    player = Player(make_robot())
    last = LATEST // PERIOD + 5
    for step in range(last):
        player.observe(100 * step, step)
        if step >= 5:
            player.command(100 * (step - 5) + 10, step - 5, arrival=100 * step)
    for step in range(last - 5, last):
        player.command(100 * step + 10, step)
    assert first(player.end().actions) == list(range(last))


def test_steps_before_the_first_command_are_left_out_and_counted() -> None:
    player = Player(make_robot())
    for step in range(5):
        if step == 2:
            player.command(200, 7)
        player.observe(100 * step, step)
    stretch = player.end()
    assert first(stretch.observations) == [2, 3, 4]
    assert stretch.start_ns == START + 2 * PERIOD
    assert player.steps.without_command == 2


def test_a_command_that_is_too_old_ends_the_steps() -> None:
    player = Player(make_robot())
    player.command(0, 7)
    for step in range(6):
        player.observe(100 * step, step)
    stretch = player.end()
    assert first(stretch.observations) == [0, 1, 2]  # 0.3 s after the command, of 0.35 s
    assert stretch.end == "no command is in force"
    assert player.steps.without_command == 3


def test_points_of_a_trajectory_are_in_force_until_they_are_due() -> None:
    player = Player(make_robot("trajectory_msgs/JointTrajectory"))
    player.trajectory(0, {100: 1, 200: 2, 300: 3})
    for step in range(2):
        player.observe(100 * step, step)
    player.trajectory(200, {100: 4, 200: 5})  # replaces the third point
    for step in range(2, 6):
        player.observe(100 * step, step)
    assert first(player.end().actions) == [1, 2, 4, 5, 5, 5]


def test_the_next_observation_can_be_the_action() -> None:
    player = Player(make_robot(), observed=(1, 0))
    for step in range(4):
        player.observe(100 * step, step)
    stretch = player.end()
    assert first(stretch.observations) == [0, 1, 2]
    np.testing.assert_array_equal(stretch.actions, [[-1, 1], [-2, 2], [-3, 3]])


def test_a_silent_source_ends_the_steps() -> None:
    player = Player(make_robot(restart_gap=10.0), observed=(0, 1))
    for step in (0, 1, 2, 10, 11, 12):
        player.observe(100 * step, step)
    player.stretches += player.steps.end()
    one, other = player.stretches
    # Until 0.2 s after the last measurement, and from 0.2 s before the next on.
    assert first(one.observations) == [0, 1, 2, 2]
    assert one.end == "topic joints is silent for longer than twice its max_age"
    assert first(other.observations) == [10, 11]


def test_a_gap_after_which_the_history_restarts_ends_the_steps() -> None:
    player = Player(make_robot(), observed=(0, 1))
    for step in (0, 1, 2, 20, 21, 22):
        player.observe(100 * step, step)
    player.stretches += player.steps.end()
    assert [first(stretch.observations) for stretch in player.stretches] == [[0, 1], [20, 21]]
    assert player.stretches[0].end == "topic joints is silent for 1.8 s"


def test_time_that_runs_backwards_is_refused() -> None:
    player = Player(make_robot())
    player.observe(5000, 0)
    with pytest.raises(StepError, match="topic joints: time runs backwards by 3 s"):
        player.observe(2000, 0)
    player.command(5000, 0)
    with pytest.raises(StepError, match="topic target: time runs backwards by 3 s"):
        player.command(2000, 0)


def test_a_late_message_is_left_out_as_on_the_robot() -> None:
    player = Player(make_robot(), observed=(0, 1))
    for ms in (0, 100, 90, 200):
        player.observe(ms, ms)
    assert first(player.end().observations) == [0, 100]
    assert player.steps.left_out == {"joints": 1, "width": 1}
    assert player.steps.reasons["joints"] == "0.010 s older than its predecessor"


def test_messages_of_other_joints_are_left_out_as_on_the_robot() -> None:
    player = Player(make_robot(), observed=(0, 1))
    for step in range(3):
        now = START + step * PERIOD
        other = joint_state(now, [1.0], names=("finger",))
        assert not list(player.steps.observe(player.robot.sources[0], other, now))
        player.observe(100 * step, step)
    assert first(player.end().observations) == [0, 1]
    assert player.steps.left_out["joints"] == 3


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([np.nan, 0.0], "number 0 is nan"),
        ([0.0, np.inf], "number 1 is inf"),
        ([0.0], "1 numbers in position, need 2"),
    ],
)
def test_damaged_numbers_are_refused(positions: list[float], message: str) -> None:
    player = Player(make_robot())
    assert player.robot.command is not None
    damaged = joint_state(START, positions)
    with pytest.raises(StepError, match=f"topic joints: {message}"):
        list(player.steps.observe(player.robot.sources[0], damaged, START))
    with pytest.raises(StepError, match=f"topic target: {message}"):
        player.steps.command(player.robot.command, damaged, START)


def test_an_impossible_stamp_is_refused() -> None:
    player = Player(make_robot())
    damaged = joint_state(START, [0, 0])
    damaged.header.stamp.sec = -1
    with pytest.raises(StepError, match="topic joints: stamped -1 s is before all clocks"):
        list(player.steps.observe(player.robot.sources[0], damaged, START))


def test_a_rate_that_no_topic_has_is_refused() -> None:
    player = Player(make_robot(), observed=(0, 1))
    for step in range(20):
        player.observe(200 * step, step)
    with pytest.raises(
        StepError, match=r"topic joints: 10 Hz cannot be kept, no topic has more than 5\.\d* Hz"
    ):
        player.end()


def test_what_was_missing_is_named() -> None:
    player = Player(make_robot(), observed=(0, 1))
    assert player.steps.obstacle() == "topic joints: it has no messages"
    other = joint_state(START, [1.0], names=("finger",))
    assert not list(player.steps.observe(player.robot.sources[0], other, START))
    assert (
        player.steps.obstacle()
        == "topic joints: none of its 1 messages can be used: joint 'shoulder' is missing"
    )
    arm, gripper = player.robot.sources
    for step in range(12):
        assert not list(player.steps.observe(arm, joint_state(5 * 10**9 + step * PERIOD, [1, 2]), START))
        width = message("std_msgs/Float32", data=1.0)
        assert not list(player.steps.observe(gripper, width, START + step * PERIOD))
    assert player.steps.obstacle() == (
        "topics are never stamped within max_age of each other; newest stamps: joints 5.900 s, width 1700000001.100 s"
    )


@settings(max_examples=50, deadline=None)
@given(
    jitter=st.lists(st.integers(-30, 30), min_size=12, max_size=40),
    arrival=st.lists(st.integers(0, 40), min_size=40, max_size=40),
)
def test_the_policy_is_shown_the_same_rows_to_the_last_bit(jitter: list[int], arrival: list[int]) -> None:
    """The node's history holds two observations, and is sampled whenever all sources have reached a time."""
    robot = make_robot()
    player = Player(robot, observed=(0, 1))
    arm, gripper = robot.sources
    messages = []
    for step, late in enumerate(jitter):
        stamp = START + (80 * step + late) * MS
        received = stamp + arrival[step] * MS
        messages.append((received, arm, joint_state(stamp, [np.sin(step), np.cos(step)])))
        messages.append((received + 7 * MS, gripper, message("std_msgs/Float32", data=step / 3)))
    messages.sort(key=lambda sent: sent[0])
    history = observation_history(robot, player.task, steps=2)
    shown: dict[int, np.ndarray] = {}
    due = None
    for received, source, sent in messages:
        player.stretches += player.steps.observe(source, sent, received)
        size = player.task.slices[source.name]
        stamp, values = measurement(sent, source, size=size.stop - size.start, now_ns=received)
        try:
            history.add(source.name, stamp, values)
        except ValueError:
            continue
        newest = history.newest_stamp()
        while newest is not None and (due := newest if due is None else due) <= newest:
            shown[due] = history.sample(due)
            due += PERIOD
    player.stretches += player.steps.end()
    (stretch,) = player.stretches
    for index, row in enumerate(stretch.observations):
        before, now = shown[stretch.start_ns + index * PERIOD]
        np.testing.assert_array_equal(row, now.astype(np.float32))
        if index:
            np.testing.assert_array_equal(stretch.observations[index - 1], before.astype(np.float32))
    assert len(shown) == len(stretch.observations) + 1
