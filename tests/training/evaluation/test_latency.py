from __future__ import annotations

from typing import Any

import pytest

from training.evaluation.latency import LatencyConfig


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (LatencyConfig(), 0),
        (LatencyConfig("fixed", ms=12.5), 12_500_000),
        (LatencyConfig("measured", margin_ms=50), 321_000_000),
    ],
)
def test_each_mode_has_its_latency(latency: LatencyConfig, expected: int) -> None:
    assert latency.latency_ns(0.321) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "slow"}, "latency.mode must be one of none, fixed, measured, got 'slow'"),
        ({"after_chunk": "rest"}, "latency.after_chunk must be one of hold, horizon, got 'rest'"),
        ({"mode": "fixed", "ms": -1}, r"latency.ms must be in 0 … 60000, got -1"),
        ({"mode": "fixed", "ms": float("nan")}, "latency.ms must be in 0 … 60000, got nan"),
        ({"mode": "measured", "margin_ms": 1e9}, "latency.margin_ms must be in"),
        ({"mode": "measured", "ms": 5}, "latency.ms is for latency=fixed, got 5 with latency=measured"),
    ],
)
def test_impossible_latencies_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatencyConfig(**values)
