from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.robot.observation_history import (
    BELIEVED_AFTER,
    Arrival,
    ObservationHistory,
    RejectedObservation,
    SourceSlice,
    check_age,
    check_coverage,
)

MS = 1_000_000
STEP = 100 * MS
KEYPOINTS = SourceSlice(name="keypoints", first=0, size=3, max_age_ns=500 * MS)
PUSHER = SourceSlice(name="pusher", first=3, size=1, max_age_ns=500 * MS)


@pytest.fixture
def history() -> ObservationHistory:
    return make_history()


def make_history(*slices: SourceSlice, steps: int = 2) -> ObservationHistory:
    slices = slices or (KEYPOINTS, PUSHER)
    return ObservationHistory(
        slices, np.full(4, -1e9), np.full(4, 1e9), steps=steps, period_ns=STEP, restart_gap_ns=500 * MS
    )


def keypoints(value: float) -> np.ndarray:
    return np.array([value, value + 0.25, value + 0.5])


def observe(history: ObservationHistory, stamp: int, value: float) -> Arrival:
    history.add("keypoints", stamp, keypoints(value))
    return history.add("pusher", stamp, np.array([-value]))


def row(value: float) -> list[float]:
    return [*keypoints(value), -value]


def refusal(history: ObservationHistory, *measurement: Any) -> RejectedObservation:
    with pytest.raises(RejectedObservation) as caught:
        history.add(*measurement)
    return caught.value


def test_nothing_is_complete_before_every_source_has_spoken(history: ObservationHistory) -> None:
    assert history.newest_stamp() is None
    assert history.obstacle(0) == "keypoints: nothing received"
    history.add("keypoints", STEP, keypoints(1))
    assert history.newest_stamp() is None
    assert history.obstacle(STEP) == "pusher: nothing received"
    history.add("pusher", STEP, np.array([-1.0]))
    assert history.newest_stamp() == STEP
    assert history.obstacle(STEP) is None


def test_first_observation_fills_the_history(history: ObservationHistory) -> None:
    observe(history, 5 * STEP, 1)
    assert history.sample(5 * STEP).tolist() == [row(1), row(1)]


def test_history_holds_the_observations_one_control_period_apart(history: ObservationHistory) -> None:
    observe(history, 0, 0)
    history.sample(0)
    for step in range(1, 9):
        observe(history, step * STEP, step)
    assert history.sample(8 * STEP).tolist() == [row(7), row(8)]


def test_an_observation_is_complete_only_when_all_of_its_parts_are_there(history: ObservationHistory) -> None:
    observe(history, 0, 0)
    history.sample(0)
    history.add("pusher", STEP, np.array([-1.0]))
    assert history.newest_stamp() == 0
    history.add("keypoints", STEP, keypoints(1))
    assert history.newest_stamp() == STEP


def test_sources_of_different_rates_are_looked_up_at_the_same_times(history: ObservationHistory) -> None:
    for time in range(0, 600, 2):  # 500 Hz
        history.add("pusher", time * MS, np.array([float(time)]))
        if time % 32 == 0:
            history.add("keypoints", time * MS, keypoints(time))
            history.sample(time * MS)
    newest = history.newest_stamp()
    assert newest == 576 * MS
    assert history.sample(newest)[:, 3].tolist() == [476.0, 576.0]
    assert history.sample(newest)[:, 0].tolist() == [480.0, 576.0]  # nearest to 476 ms


@given(st.lists(st.integers(1, 499), min_size=1, max_size=40), st.integers(0, 10**18))
def test_lookup_finds_the_nearest_measurement(gaps: list[int], origin: int) -> None:
    history = make_history(SourceSlice(name="both", first=0, size=4, max_age_ns=500 * MS))
    stamps = [origin + int(gap) * MS for gap in np.cumsum([0, *gaps])]
    for stamp in stamps:
        history.add("both", stamp, np.full(4, (stamp - origin) / MS))
        history.sample(stamp)
    oldest = round(history.sample(stamps[-1])[0, 0]) * MS + origin
    target = stamps[-1] - STEP
    assert abs(oldest - target) == min(abs(stamp - target) for stamp in stamps)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keypoints", "pusher"]), st.integers(-(10**10), 10**10), st.floats(-2e9, 2e9)
        ),
        max_size=200,
    )
)
def test_no_sequence_of_measurements_breaks_it(measurements: list[tuple[str, int, float]]) -> None:
    history = make_history()
    reasons = set()
    for name, stamp, value in measurements:
        values = keypoints(value) if name == "keypoints" else np.array([value])
        try:
            history.add(name, stamp, values)
        except RejectedObservation as rejection:
            reasons.add(rejection.reason)
        newest = history.newest_stamp()
        if newest is not None:
            sample = history.sample(newest)
            assert sample.shape == (2, 4)
            assert np.isfinite(sample).all()
    assert reasons <= {"order", "range"}


@pytest.mark.parametrize(
    ("values", "reason", "detail"),
    [
        (np.zeros(2), "length", "2 numbers, need 3"),
        (np.zeros((3, 1)), "length", "3 numbers, need 3"),
        (np.array([0, np.nan, 0]), "not_finite", "number 1 is nan"),
        (np.array([0, 0, -np.inf]), "not_finite", "number 2 is -inf"),
        (np.array([0, 2e9, 0]), "range", "number 1 is 2e+09, must be in -1e+09 … 1e+09"),
    ],
)
def test_bad_values_are_refused_and_lose_nothing(
    history: ObservationHistory, values: np.ndarray, reason: str, detail: str
) -> None:
    observe(history, 0, 1)
    rejection = refusal(history, "keypoints", STEP, values)
    assert rejection.reason == reason
    assert detail in str(rejection)
    assert history.sample(0).tolist() == [row(1), row(1)]


def test_the_same_stamp_again_is_a_duplicate(history: ObservationHistory) -> None:
    observe(history, STEP, 1)
    assert observe(history, STEP, 2) is Arrival.DUPLICATE
    assert history.sample(STEP).tolist() == [row(1), row(1)]


def test_late_measurements_are_refused(history: ObservationHistory) -> None:
    observe(history, 10 * STEP, 1)
    rejection = refusal(history, "pusher", 8 * STEP, np.array([0.0]))
    assert rejection.reason == "order"
    assert str(rejection) == "0.200 s older than its predecessor"
    assert history.newest_stamp() == 10 * STEP


def test_a_source_that_stays_late_is_believed(history: ObservationHistory) -> None:
    observe(history, 10 * STEP, 1)
    for late in range(BELIEVED_AFTER - 1):
        assert refusal(history, "pusher", 8 * STEP + late, np.array([0.0])).reason == "order"
    assert history.add("pusher", 8 * STEP + 100, np.array([0.0])) is Arrival.RESTART
    assert history.newest_stamp() is None


@pytest.mark.parametrize("jump", [-9 * STEP, 10 * STEP, 10**15])
def test_a_jump_in_time_restarts_the_history(history: ObservationHistory, jump: int) -> None:
    for step in range(10, 20):
        observe(history, step * STEP, step)
        history.sample(step * STEP)
    stamp = 19 * STEP + jump
    assert history.add("keypoints", stamp, keypoints(1)) is Arrival.RESTART
    assert history.newest_stamp() is None
    assert refusal(history, "pusher", 20 * STEP, np.array([-20.0])).reason == "order"  # from before
    assert history.newest_stamp() is None
    history.add("pusher", stamp, np.array([-1.0]))
    assert history.newest_stamp() == stamp
    assert history.sample(stamp).tolist() == [row(1), row(1)]


def test_a_source_that_was_away_restarts_the_history(history: ObservationHistory) -> None:
    for step in range(3):
        observe(history, step * STEP, step)
        history.sample(step * STEP)
    for step in range(3, 10):
        history.add("pusher", step * STEP, np.array([-float(step)]))
    assert history.newest_stamp() is None or history.newest_stamp() == 2 * STEP
    assert history.obstacle(10 * STEP) == "keypoints: 0.80 s old, max_age is 0.50 s"
    assert history.add("keypoints", 9 * STEP, keypoints(9)) is Arrival.RESTART
    assert history.sample(9 * STEP).tolist() == [row(9), row(9)]


def test_sources_whose_stamps_lie_apart_are_never_complete() -> None:
    history = make_history()
    history.add("pusher", 0, np.array([0.0]))
    assert refusal(history, "keypoints", 100 * STEP, keypoints(0)).reason == "order"
    assert history.newest_stamp() is None


def test_forgetting_accepts_what_was_seen_before(history: ObservationHistory) -> None:
    observe(history, STEP, 1)
    history.forget()
    assert history.newest_stamp() is None
    assert observe(history, STEP, 2) is Arrival.NEW
    assert history.sample(STEP).tolist() == [row(2), row(2)]


def test_memory_is_bounded(history: ObservationHistory) -> None:
    for stamp in range(10_000):
        history.add("pusher", stamp, np.array([0.0]))
    for step in range(100):
        history.add("keypoints", step * STEP, keypoints(0))
    assert len(history._sources["pusher"].buffer) <= 2048
    assert len(history._sources["keypoints"].buffer) <= 8


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ((KEYPOINTS,), "no source fills index 3"),
        (
            (KEYPOINTS, SourceSlice(name="pusher", first=2, size=2, max_age_ns=1)),
            "sources keypoints and pusher both fill index 2",
        ),
        (
            (KEYPOINTS, SourceSlice(name="pusher", first=3, size=2, max_age_ns=1)),
            "source pusher fills index 4, the policy's observation has 4",
        ),
    ],
)
def test_slices_must_fill_the_observation(slices: tuple[SourceSlice, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_coverage(slices, 4)


def test_age_is_checked_both_ways() -> None:
    check_age(PUSHER, 0, 500 * MS, may_lead=False)
    check_age(PUSHER, 900 * MS, 0, may_lead=True)
    with pytest.raises(RejectedObservation, match=r"0\.501 s old, max_age is 0\.500 s") as stale:
        check_age(PUSHER, 0, 501 * MS, may_lead=True)
    assert stale.value.reason == "stale"
    with pytest.raises(RejectedObservation, match=r"stamped 0\.501 s ahead") as future:
        check_age(PUSHER, 501 * MS, 0, may_lead=False)
    assert future.value.reason == "future"
