from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import pytest

from policy import DiffusionPolicy, SamplerConfig
from training.benchmark.config import LatencyReportConfig
from training.benchmark.reports.latency import measure_latency
from training.benchmark.run import main
from training.evaluation.latency import LatencyConfig
from training.evaluation.rollout import run_episodes


@pytest.fixture
def arguments(benchmark_arguments: list[str], pcm_path: Path) -> list[str]:
    return [
        *benchmark_arguments,
        "report=latency",
        f"pcm=[{pcm_path}]",
        "latency.fixed_ms=[0,520]",
        "latency.ddim_steps=[3,2]",
        "latency.picard_steps=4",
        "latency.depth=2",
        "latency.episodes=2",
        "latency.max_steps=24",
        "latency.engine=eager",
        "latency.noise_seeds=[0]",
    ]


def read_rows(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "out" / "latency.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_report_has_a_curve_and_a_measured_point_for_each_sampler(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    squeeze: Callable[[str], str],
) -> None:
    assert main(arguments) == 0
    assert "16 rollouts of 2 episodes, 16 of them to be measured" in capsys.readouterr().out
    rows = read_rows(tmp_path)
    samplers = [("sequential", "3", "3"), ("sequential", "2", "2"), ("picard", "4", "2"), ("pcm", "5", "2")]
    assert [(row["method"], row["steps"], row["depth"]) for row in rows] == samplers * 4
    assert [row["latency"] for row in rows] == ["fixed"] * 12 + ["measured"] * 4
    for row in rows[:4]:
        assert (row["ms_p50"], row["skipped_points"], row["hold_share"]) == ("0.0", "0.0", "0.0")
    assert [row["after_chunk"] for row in rows] == ["hold"] * 8 + ["horizon"] * 4 + ["hold"] * 4
    for held, gone_on in zip(rows[4:8], rows[8:12], strict=True):
        assert held["ms_p50"] == gone_on["ms_p50"] == "520.0"
        assert float(held["hold_share"]) > float(gone_on["hold_share"]) > 0
    for row in rows[12:]:
        assert 0 < float(row["ms_p50"]) <= float(row["ms_p99"])
        assert row["engine"] == "eager"
    page = squeeze((tmp_path / "out" / "latency.md").read_text())
    for expected in (
        "| sampler | 0 ms | 520 ms |",
        "| picard, ddim, preconditioned, gaussian, T = 4, depth 2 |",
        "| pcm, ddim, adapters, parameter space, s = 1, T = 5, depth 2 |",
        "| skipped, sequential, ddim, T = 3 | 0.0 | 6.0 |",
        "| picard, ddim, preconditioned, gaussian, T = 4, depth 2, goes on with the horizon | | ",
        "### Measured latencies",
        "checkpoint_sha256",
    ):
        assert expected in page
    assert imageio.imread(tmp_path / "out" / "latency.png").std() > 5  # not blank


def test_what_was_measured_is_not_measured_again(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*arguments, "latency.measured=false", "latency.horizon=false", "pcm=[]"]
    arguments += ["latency.noise_seeds=[0,1]"]
    assert main([*arguments, "latency.fixed_ms=[520]"]) == 0
    before = read_rows(tmp_path)
    rollouts = set((tmp_path / "out" / "latency_rows").iterdir())
    times = {path: path.stat().st_mtime_ns for path in rollouts}
    assert main(arguments) == 0
    assert "12 rollouts of 2 episodes, 6 of them to be measured" in capsys.readouterr().out
    assert read_rows(tmp_path)[3:] == before
    assert {path: path.stat().st_mtime_ns for path in rollouts} == times


def test_rewards_are_those_of_a_rollout(policy: DiffusionPolicy) -> None:
    fast = policy.with_sampler(SamplerConfig("sequential", "ddim", 2))
    latency = LatencyConfig("fixed", ms=150)
    options = LatencyReportConfig(episodes=2, max_steps=20, first_seed=7)
    row = measure_latency(fast, options, latency, noise_seed=3)
    rollout = run_episodes(fast, [7, 8], max_steps=20, noise_seed=3, latency=latency, show_progress=False)
    assert row["max_rewards"] == [episode.max_reward for episode in rollout.episodes]
    assert row["skipped_points"] == 2


def test_a_policy_that_never_answers_in_time_leaves_cells_empty(policy: DiffusionPolicy) -> None:
    fast = policy.with_sampler(SamplerConfig("sequential", "ddim", 2))
    options = LatencyReportConfig(episodes=1, max_steps=10)
    row = measure_latency(fast, options, LatencyConfig("fixed", ms=5000), noise_seed=0)
    assert row["skipped_points"] is row["missed"] is None
    assert row["hold_share"] == 1
    assert row["latencies_ms"] == [5000]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("latency.depth=1", "latency.depth must be in 2 … 3, got 1"),
        ("latency.noise_seeds=[]", "latency.noise_seeds must not be empty"),
        ("latency.episodes=0", "latency.episodes must be at least 1, got 0"),
        ("latency.fixed_ms=[-5]", "latency.ms must be in 0 … 60000, got -5"),
    ],
)
def test_impossible_values_are_refused(
    arguments: list[str], argument: str, message: str, refusal: Callable[..., str]
) -> None:
    assert message in refusal(*arguments, argument)
