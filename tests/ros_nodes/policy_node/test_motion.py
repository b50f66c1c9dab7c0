"""What an active policy node sends in real time: points that are still to come, and stops."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from control_msgs.msg import JointTrajectoryControllerState
from policy_peer import STEP, observation
from rosgraph_msgs.msg import Clock


def velocities(message: Any) -> np.ndarray:
    return np.array([list(point.velocities) for point in message.points])


def due(message: Any) -> list[int]:
    return [point.time_from_start.sec * 10**9 + point.time_from_start.nanosec for point in message.points]


@pytest.mark.parametrize("tail", [0, 7])
def test_points_have_velocities_and_end_at_rest(start_policy: Callable[..., Any], tail: int) -> None:
    far = {"lower_limits": [-1e3, -1e3], "upper_limits": [2e3, 2e3]}
    policy = start_policy(trajectory__tail_points=tail, **far).activate()
    policy.observe(STEP, observation(0))
    _, positions = policy.chunk(0)
    message = policy.chunks[0]
    assert due(message) == [i * STEP for i in range(1, 9 + tail)]
    speeds = velocities(message)
    np.testing.assert_allclose(speeds[1:-1], (positions[2:] - positions[:-2]) / 0.2, rtol=1e-9)
    assert not speeds[-1].any()


def test_lockstep_sends_positions_alone(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(synchronous=True).activate()
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    assert not velocities(policy.chunks[0]).size
    assert policy.transition("deactivate")
    policy.wait_for_message("inactive")
    assert len(policy.chunks) == 1, "the world stands still, and needs no stop"


def test_points_that_are_due_within_a_period_are_left_out(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(use_sim_time=False, keypoints__max_age=60.0, pusher__max_age=60.0).activate()
    stamp = policy.now() - 3 * STEP
    policy.observe(stamp, observation(0))
    policy.chunk(0)
    assert due(policy.chunks[0])[0] >= 5 * STEP
    assert due(policy.chunks[0])[-1] == 8 * STEP


def test_a_chunk_without_points_to_come_is_not_sent(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(use_sim_time=False, keypoints__max_age=60.0, pusher__max_age=60.0).activate()
    policy.observe(policy.now() - 8 * STEP, observation(0))
    policy.wait_for_value("late_chunks", 1)
    assert not policy.chunks
    assert policy.values()["chunks"] == "0"
    assert "too late for all of its 8 points, not sent" in policy.graph.output(policy.process)


def test_deactivation_stops_the_joints_where_they_were_measured(start_policy: Callable[..., Any]) -> None:
    policy = start_policy().activate()
    policy.observe(STEP, observation(3))
    policy.chunk(0)
    assert policy.transition("deactivate")
    _, positions = policy.chunk(1)
    np.testing.assert_array_equal(positions, [observation(3)[18:]])
    assert due(policy.chunks[1]) == [STEP]
    assert velocities(policy.chunks[1]).tolist() == [[0.0, 0.0]]
    policy.wait_for_message("inactive")
    assert policy.values()["stops"] == "1"


def test_lost_observations_stop_the_joints_once(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(
        use_sim_time=False, keypoints__max_age=0.3, pusher__max_age=0.3, trajectory__tail_points=7
    ).activate()
    policy.graph.spin_until(lambda: policy.observe(policy.now(), observation(0)) or policy.chunks, "a chunk")
    policy.wait_for_value("stops", 1)
    policy.graph.spin_until(lambda: len(policy.chunks[-1].points) == 1, "a stop")
    policy.wait_for_message("no chunk: ")
    assert policy.values()["stops"] == "1"


def test_bad_points_fail_configure(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(trajectory__tail_points=8)
    assert not policy.transition("configure")
    assert "trajectory.tail_points must be at most 7" in policy.graph.output(policy.process)
    policy.graph.set_parameters("policy", trajectory__velocities=False, trajectory__accelerations=True)
    assert not policy.transition("configure")
    assert "trajectory.accelerations needs trajectory.velocities" in policy.graph.output(policy.process)


def test_a_clock_that_begins_anew_and_a_process_that_is_terminated_stop_the_joints(
    start_policy: Callable[..., Any],
) -> None:
    policy = start_policy(trajectory__accelerations=True, velocity_limits=[100.0, 100.0])
    clock = policy.graph.node.create_publisher(Clock, "/clock", 1)
    policy.activate()

    def tick(step: int) -> None:
        clock.publish(Clock(clock=policy.stamp(step * STEP)))

    def chunk_of(step: int) -> Any:
        """Of an observation at a time that the clock shows."""
        policy.chunks.clear()
        policy.graph.spin_until(
            lambda: tick(step) or policy.observe(step * STEP, observation(3)) or policy.chunks, "a chunk"
        )
        return policy.chunks[-1]

    def assert_stops(step: int) -> None:
        stop = policy.chunks[-1]
        assert (len(stop.points), due(stop)) == (1, [STEP])
        np.testing.assert_array_equal(stop.points[0].positions, observation(3)[18:])
        assert stop.header.stamp == policy.stamp(step * STEP)

    chunk = chunk_of(100)
    assert len(chunk.points[0].accelerations) == 2
    assert due(chunk)[-1] > 8 * STEP, "it is slowed"
    policy.chunks.clear()
    policy.graph.spin_until(lambda: tick(50) or policy.chunks, "a stop")
    assert_stops(50)
    policy.wait_for_value("stops", 1)
    assert policy.values()["limited_chunks"] == "1"

    chunk_of(51)
    policy.chunks.clear()
    assert policy.graph.stop(policy.process, signal.SIGTERM) == 0
    policy.graph.spin_until(lambda: policy.chunks, "a stop")
    assert_stops(51)


def test_a_controller_whose_state_falls_silent_is_named_at_once(start_policy: Callable[..., Any]) -> None:
    policy = start_policy().activate()
    state = policy.graph.node.create_publisher(
        JointTrajectoryControllerState, "/pusher_controller/controller_state", 1
    )
    policy.observe(STEP, observation(0))
    policy.wait_for_message("no chunk: /pusher_controller/controller_state is silent for ")
    policy.chunks.clear()

    def update() -> bool:
        state.publish(JointTrajectoryControllerState())
        policy.observe(30 * STEP, observation(0))
        return bool(policy.chunks)

    policy.graph.spin_until(update, "a chunk for the controller that is back")
