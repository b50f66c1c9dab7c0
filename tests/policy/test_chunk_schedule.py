from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.chunk_schedule import ChunkSchedule

MS = 1_000_000
STEP = 100 * MS


def schedule(synchronous: bool = False, latency: int = 0, margin: int = 0) -> ChunkSchedule:
    return ChunkSchedule(
        chunk_ns=8 * STEP,
        period_ns=STEP,
        margin_ns=margin,
        synchronous=synchronous,
        inference_ns=latency,
    )


@pytest.mark.parametrize("synchronous", [False, True])
def test_first_observation_starts_a_chunk_once(synchronous: bool) -> None:
    chunks = schedule(synchronous)
    assert not chunks.due(0)
    chunks.observe(5 * STEP)
    assert chunks.due(5 * STEP)
    chunks.started(5 * STEP)
    assert not chunks.due(50 * STEP)


def test_lockstep_waits_for_the_end_of_the_chunk() -> None:
    chunks = schedule(synchronous=True, latency=300 * MS)
    chunks.observe(0)
    chunks.started(0)
    assert not chunks.finished(0, 0, 0)
    for step in range(1, 8):
        chunks.observe(step * STEP)
        assert not chunks.due(step * STEP)
    chunks.observe(8 * STEP)
    assert chunks.due(8 * STEP)


@given(st.integers(0, 700), st.integers(0, 100))
def test_a_chunk_starts_from_the_last_observation_that_leaves_enough_time(latency: int, margin: int) -> None:
    chunks = schedule(latency=latency * MS, margin=margin * MS)
    chunks.observe(0)
    chunks.started(0)
    chunks.finished(0, 0, 0)
    due = []
    for step in range(1, 9):
        chunks.observe(step * STEP)
        if chunks.due(step * STEP):
            due.append(step)
    in_time = [step for step in range(1, 9) if 100 * step + latency + margin <= 800]
    assert due[0] == max(in_time, default=1)


def test_faster_observations_are_used_later() -> None:
    chunks = schedule(latency=200 * MS)
    chunks.observe(0)
    chunks.started(0)
    chunks.finished(0, 0, 0)
    due = []
    for time in range(20, 800, 20):
        chunks.observe(time * MS)
        if chunks.due(time * MS):
            due.append(time)
    assert due[0] == 600


@given(st.integers(1, 700), st.integers(1, 300), st.integers(0, 100))
def test_slower_observations_still_leave_enough_time(interval: int, latency: int, margin: int) -> None:
    chunks = schedule(latency=latency * MS, margin=margin * MS)
    missed, free, newest = [], 0, 0
    for now in range(20_000):
        if now % interval == 0:
            newest = now
            chunks.observe(newest * MS)
        # As the node: it asks when an observation comes, unless it is computing, and when a chunk is ready.
        if ((now % interval == 0 and now >= free) or now == free) and chunks.due(now * MS):
            chunks.started(newest * MS)
            free = now + latency
            missed.append(chunks.finished(newest * MS, latency * MS, free * MS))
    # The first chunk is there before it is known how often observations come.
    in_vain = interval + 2 * latency + margin > 800
    assert in_vain or not any(missed[2:])


def test_measured_latency_replaces_the_expected_one() -> None:
    chunks = schedule(latency=600 * MS)
    now = 0
    for _ in range(30):
        chunks.observe(now)
        chunks.started(now)
        chunks.finished(now, 100 * MS, now)
        now += 8 * STEP
    start = now - 8 * STEP
    for step in range(1, 7):
        chunks.observe(start + step * STEP)
    assert not chunks.due(start + 6 * STEP)


def test_the_first_chunk_of_another_policy_starts_at_once_and_teaches_its_latency() -> None:
    chunks = schedule(latency=600 * MS)
    chunks.observe(0)
    chunks.started(0)
    chunks.finished(0, 600 * MS, 0)
    chunks.relearn()
    assert not chunks.due(0), "no observation is used twice"
    chunks.observe(STEP)
    assert chunks.due(STEP)
    chunks.started(STEP)
    chunks.finished(STEP, 100 * MS, 2 * STEP)
    chunks.observe(6 * STEP)
    chunks.observe(7 * STEP)
    assert not chunks.due(7 * STEP)
    chunks.observe(8 * STEP)
    assert chunks.due(8 * STEP)


def test_lockstep_waits_for_the_end_of_the_chunk_whoever_computes_the_next() -> None:
    chunks = schedule(synchronous=True)
    chunks.observe(0)
    chunks.started(0)
    chunks.finished(0, 0, 0)
    chunks.relearn()
    chunks.observe(STEP)
    assert not chunks.due(STEP)


def test_deadlines_count_from_the_second_chunk_on_and_only_in_real_time() -> None:
    for synchronous, missed in ((False, True), (True, False)):
        chunks = schedule(synchronous)
        assert not chunks.finished(0, 0, 10**12)
        assert not chunks.finished(STEP, 0, 8 * STEP)
        assert chunks.finished(2 * STEP, 0, 9 * STEP + 1) is missed


@pytest.mark.parametrize("jump", [3600 * 10 * STEP, -3600 * 10 * STEP])
def test_a_clock_that_jumps_during_an_inference_teaches_nothing(jump: int) -> None:
    chunks = schedule(latency=50 * MS)
    chunks.observe(0)
    chunks.started(0)
    chunks.finished(0, 50 * MS + jump, 0)
    starts = []
    for step in range(1, 9):
        chunks.observe(step * STEP)
        if chunks.due(step * STEP):
            starts.append(step)
    assert starts == [7, 8]


def test_inferences_that_take_longer_than_a_chunk_again_are_believed() -> None:
    chunks = schedule(latency=50 * MS)
    for _ in range(2):
        chunks.observe(0)
        chunks.started(0)
        chunks.finished(0, 900 * MS, 0)
    chunks.observe(STEP)
    assert chunks.due(STEP)


def test_restart_forgets_the_chunk() -> None:
    chunks = schedule(synchronous=True)
    chunks.observe(100 * STEP)
    chunks.started(100 * STEP)
    chunks.finished(100 * STEP, 0, 0)
    chunks.restart()
    chunks.observe(STEP)
    assert chunks.due(STEP)
