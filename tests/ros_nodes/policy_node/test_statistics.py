from __future__ import annotations

import numpy as np
import pytest

from ros_nodes.policy_node.statistics import PolicyStatistics


def test_statistics_start_empty_and_stay_bounded() -> None:
    statistics = PolicyStatistics()
    assert statistics.values()["latency_p50_ms"] == "nan"
    assert statistics.faults() == 0
    for _ in range(3000):
        statistics.latencies.append(0.3)
        statistics.inference_seconds.append(0.25)
    assert len(statistics.latencies) == 1000
    assert statistics.overheads == pytest.approx([0.05] * 1000)
    assert statistics.values()["overhead_p99_ms"] == "50.00"
    statistics.rejections["pusher", "range"] += 2
    statistics.deadline_misses += 1
    assert statistics.faults() == 3


def test_percentiles_are_numpys_in_milliseconds() -> None:
    statistics = PolicyStatistics()
    seconds = np.random.default_rng(0).exponential(0.1, size=200)
    statistics.latencies.extend(2 * seconds)
    statistics.inference_seconds.extend(seconds)
    values = statistics.values()
    for percent in (50, 95, 99):
        expected = np.percentile(seconds, percent) * 1e3
        assert values[f"inference_p{percent}_ms"] == f"{expected:.2f}"
        assert values[f"overhead_p{percent}_ms"] == f"{expected:.2f}"
        assert values[f"latency_p{percent}_ms"] == f"{2 * expected:.2f}"
