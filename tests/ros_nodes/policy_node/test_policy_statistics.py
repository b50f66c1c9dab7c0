from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ros_nodes.policy_node.policy_statistics import PolicyStatistics, percentile


@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0, 100))
def test_percentile_is_the_smallest_value_that_covers_the_percentage(
    values: list[float], percent: float
) -> None:
    value = percentile(values, percent)
    assert value in values
    assert sum(v <= value for v in values) >= percent / 100 * len(values) - 1e-6
    if value > min(values):
        below = max(v for v in values if v < value)
        assert sum(v <= below for v in values) < percent / 100 * len(values) + 1e-6


def test_statistics_start_empty_and_stay_bounded() -> None:
    statistics = PolicyStatistics()
    assert math.isnan(percentile(statistics.latencies, 50))
    assert statistics.faults() == 0
    for _ in range(3000):
        statistics.latencies.append(0.3)
        statistics.inference_seconds.append(0.25)
    assert len(statistics.latencies) == 1000
    assert percentile(statistics.overheads, 99) == pytest.approx(0.05)
    statistics.rejections["pusher", "range"] += 2
    statistics.deadline_misses += 1
    assert statistics.faults() == 3
