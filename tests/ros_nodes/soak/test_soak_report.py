from __future__ import annotations

import pytest

from policy import PicardConfig, SamplerConfig, StopConfig
from policy.sampling import sampler_options
from ros_nodes.soak.report import (
    Sample,
    duration_report,
    load_report,
    logged_faults,
    memory_report,
    sampler_text,
)


def test_growth_is_the_slope_after_memory_has_settled() -> None:
    settling = [Sample(10.0 * i, {"policy_node": 50.0 * i}, 1.0) for i in range(25)]
    settled = [Sample(10.0 * i, {"policy_node": 1200.0 + i / 36}, 1.0) for i in range(25, 100)]
    report = memory_report([*settling, *settled], ["policy_node"])["policy_node"]
    assert report["growth_mib_per_hour"] == pytest.approx(10.0)
    assert (report["start_mib"], report["settled_mib"]) == (0.0, 1200.0 + 25 / 36)
    assert report["end_mib"] == 1200.0 + 99 / 36


def test_a_process_that_comes_late_and_ends_early_is_measured_while_it_was_there() -> None:
    there = [Sample(3600.0 * i, {"runner": 7.0}, 1.0) for i in range(2, 9)]
    report = memory_report([Sample(0.0, {}, 1.0), *there, Sample(36000.0, {}, 1.0)], ["runner"])["runner"]
    assert report["start_mib"] == report["end_mib"] == 7.0
    assert report["growth_mib_per_hour"] == pytest.approx(0.0)


def test_growth_of_a_process_that_was_not_seen_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="policy_node was seen 0 times"):
        memory_report([Sample(float(i), {}, 1.0) for i in range(9)], ["policy_node"])


def test_durations_are_reported_in_milliseconds() -> None:
    assert duration_report([]) is None
    report = duration_report([i / 1000 for i in range(1, 201)])
    assert report == pytest.approx({"count": 200, "p50_ms": 100.5, "p99_ms": 198.01, "max_ms": 200.0})


def test_the_sampler_is_named_with_the_options_that_differ_from_their_defaults() -> None:
    sampler = SamplerConfig(
        "picard",
        "ddim",
        16,
        stop=StopConfig(iterations=4, tolerance=0.5),
        picard=PicardConfig("drift", "held"),
    )
    diagnostics = {name: str(value) for name, _, value in sampler_options(sampler)} | {"state": "active"}
    assert sampler_text(diagnostics) == str(sampler)
    assert "stop.iterations=4" in sampler_text(diagnostics)


def test_load_is_reported_in_the_median_and_at_its_highest() -> None:
    samples = [Sample(float(load), {}, load) for load in (1.0, 9.0, 2.0)]
    assert load_report(samples) == {"median": 2.0, "max": 9.0}


def test_faults_are_counted_by_severity() -> None:
    log = """[INFO] [policy_node-2]: process started with pid [7]
[policy_node-2] [WARN] [1700000000.5] [policy]: the chunk came late [ERROR]
[policy_node-2] [ERROR] [1700000001.5] [policy]: the sampler failed
[policy_node-2] Traceback (most recent call last):
"""
    assert logged_faults(log) == {"WARN": 1, "ERROR": 1, "FATAL": 0, "Traceback": 1}
