from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy import PolicyConfig
from policy.chunk_schedule import ChunkSchedule
from pusht_env.env import PushTEnv
from ros_nodes.commands.trajectory_execution import Point, Trajectory, hold
from training.data.task_file import load_task
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.episode import Episode, RunningEpisode

CONFIG = PolicyConfig()
MS = 1_000_000
PERIOD_NS = 100 * MS
SEED = 3


def pusht(max_steps: int) -> Environment:
    return Environment(EnvironmentConfig(), load_task("pusht").task, max_steps=max_steps)


def actions(number: int) -> np.ndarray:
    """(16, 2) the horizon of a chunk, no two of whose targets are the same; the chunk begins with the second."""
    return np.stack([100 + 10 * np.arange(16), np.full(16, 100 + 30 * (number % 10))], axis=1).astype(float)


def run(
    latencies_ms: Sequence[float], max_steps: int = 24, margin_ms: int = 0, follow_horizon: bool = False
) -> tuple[Episode, list[tuple[float, float]]]:
    """An episode in which chunk i takes `latencies_ms[i]`, the last latency again and again; and its targets."""
    targets: list[tuple[float, float]] = []
    step = PushTEnv.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            PushTEnv, "step", lambda env, action: (targets.append(tuple(action)), step(env, action))[1]
        )
        running = RunningEpisode(
            CONFIG, pusht(max_steps), SEED, margin_ns=margin_ms * MS, follow_horizon=follow_horizon
        )
        number = 0
        while not running.ended:
            latency = latencies_ms[min(number, len(latencies_ms) - 1)]
            running.receive(actions(number), 0.5, round(latency * MS))
            number += 1
        return running.finish(), targets


def start() -> tuple[float, float]:
    env = PushTEnv()
    _, info = env.reset(seed=SEED)
    return tuple(info["pusher_position"])


def on_ros(latencies_ms: Sequence[int], steps: int, margin_ms: int) -> list[tuple[float, ...]]:
    """The targets of the ROS nodes' parts: millisecond by millisecond, one inference at a time."""
    schedule = ChunkSchedule(
        chunk_ns=8 * PERIOD_NS,
        period_ns=PERIOD_NS,
        margin_ns=margin_ms * MS,
        synchronous=False,
        inference_ns=0,
    )
    trajectory = hold(start(), 0)
    targets = []
    computing: tuple[int, int, int] | None = None
    newest, number = 0, 0
    for now in range(0, steps * PERIOD_NS, MS):
        consider = observed = now % PERIOD_NS == 0
        if observed:
            newest = now
            schedule.observe(now)
        while True:
            if computing is not None and now >= computing[2]:
                stamp, started, _ = computing
                times = tuple(stamp + i * PERIOD_NS for i in range(1, 9))
                if times[-1] >= now:  # read_trajectory refuses one that has ended
                    points = tuple(Point(position=tuple(row)) for row in actions(number)[1:9].tolist())
                    here = Point(position=trajectory.sample(now))
                    trajectory = Trajectory(start_time=now, start=here, times=times, points=points)
                schedule.finished(stamp, now - started, now)
                computing, consider = None, True
                number += 1
            if not (consider and computing is None and schedule.due(now)):
                break
            schedule.started(newest)
            latency = latencies_ms[min(number, len(latencies_ms) - 1)]
            computing = newest, now, now + latency * MS
        if observed:
            targets.append(trajectory.sample(now + PERIOD_NS))
    return targets


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0, 100, 700, 800]) | st.integers(0, 950), min_size=1, max_size=5),
    st.sampled_from([0, 50]),
)
def test_targets_are_those_of_the_nodes_on_ros(latencies_ms: list[int], margin_ms: int) -> None:
    episode, targets = run(latencies_ms, margin_ms=margin_ms)
    expected = on_ros(latencies_ms, 24, margin_ms)
    np.testing.assert_allclose(targets, expected[: len(targets)])
    assert episode.steps == len(targets)


def test_a_late_chunk_starts_where_time_already_is() -> None:
    episode, targets = run([250], max_steps=16)
    first, second = actions(0)[1:], actions(1)[1:]
    # There after 2.5 control periods; the target of a control step is fixed at its start.
    assert targets[:3] == [start()] * 3
    assert targets[3:8] == [tuple(target) for target in first[3:8]]
    # Started from the last observation that left 250 ms, that of step 5.
    assert targets[8:13] == [tuple(target) for target in second[3:8]]
    assert [chunk.step for chunk in episode.chunks] == [0, 5, 10]
    assert [chunk.skipped_points for chunk in episode.chunks] == [3, 3, 3]
    assert episode.hold_steps == 3
    assert not any(chunk.missed for chunk in episode.chunks)


def test_without_latency_every_point_is_executed_in_its_turn() -> None:
    episode, targets = run([0], max_steps=20)
    expected = np.concatenate([actions(number)[1:9] for number in range(3)])[:20]
    assert np.array_equal(targets, expected)
    assert [(c.step, c.skipped_points, c.start_delay_ms) for c in episode.chunks] == [
        (0, 0, 0),
        (8, 0, 0),
        (16, 0, 0),
    ]
    assert episode.hold_steps == 0


def test_between_chunks_the_last_target_is_held() -> None:
    episode, targets = run([600], max_steps=18)
    # Step 6: points 7 and 8 of the first chunk; then none until the second is there, at step 12.
    assert targets[6:8] == [tuple(target) for target in actions(0)[7:9]]
    assert targets[8:12] == [tuple(actions(0)[8])] * 4
    assert targets[12:14] == [tuple(target) for target in actions(1)[7:9]]
    assert episode.hold_steps == 6 + 4 + 4
    assert [chunk.missed for chunk in episode.chunks] == [False, True]


def test_between_chunks_the_rest_of_the_horizon_is_followed_on_request() -> None:
    episode, targets = run([600], max_steps=18, follow_horizon=True)
    assert targets[6:12] == [tuple(target) for target in actions(0)[7:13]]
    assert targets[12:18] == [tuple(target) for target in actions(1)[7:13]]
    assert episode.hold_steps == 6
    assert [chunk.missed for chunk in episode.chunks] == [False, True]
    # The whole horizon ends 15 steps after the newest observation.
    _, targets = run([1501], max_steps=20, follow_horizon=True)
    assert targets == [start()] * 20


@pytest.mark.parametrize("latency_ms", [0, 130, 400])
def test_the_horizon_makes_no_difference_where_the_next_chunk_is_in_time(latency_ms: int) -> None:
    assert run([latency_ms], 40)[1] == run([latency_ms], 40, follow_horizon=True)[1]


@pytest.mark.parametrize(("latency_ms", "moves"), [(800, True), (801, False)])
def test_a_chunk_that_has_ended_is_refused(latency_ms: int, moves: bool) -> None:
    _, targets = run([latency_ms], max_steps=20)
    last = tuple(actions(0)[8])
    assert targets[9:12] == ([last] * 3 if moves else [start()] * 3)


def test_an_inference_may_start_between_observations() -> None:
    episode, _ = run([550], max_steps=20)
    # The first chunk is there after 550 ms, and no later observation leaves enough time.
    assert [(c.step, c.start_delay_ms) for c in episode.chunks[:2]] == [(0, 0), (5, 50)]


def test_the_first_observation_stands_for_those_before_it() -> None:
    running = RunningEpisode(CONFIG, pusht(24), SEED)
    oldest, newest = running.observations()
    assert np.array_equal(oldest, newest)
    running.receive(actions(0), 0.0, 250 * MS)
    assert running.executed == 5
    oldest, newest = running.observations()
    assert oldest.shape == (20,)
    assert not np.array_equal(oldest, newest)


def test_the_jump_compares_targets_of_the_same_control_steps() -> None:
    running = RunningEpisode(CONFIG, pusht(24), SEED)
    before = np.random.default_rng(0).uniform(0, 500, (16, 2))
    running.receive(before, 0.0, 0)
    after = before.copy()
    after[1:8] = before[9:16] + np.array([3, 4])  # eight control steps later
    running.receive(after, 0.0, 0)
    chunks = running.finish().chunks
    assert chunks[0].jump is None
    assert chunks[1].jump == pytest.approx(5)


def test_an_episode_may_end_while_the_policy_computes() -> None:
    episode, _ = run([350, 700], max_steps=9)
    assert episode.steps == 9
    assert [chunk.step for chunk in episode.chunks] == [0]
    assert episode.chunk_seconds == (0.5, 0.5)
