from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
from torch import Tensor

from policy import DiffusionPolicy, PcmConfig, PicardConfig, SamplerConfig
from policy.sampling.recurrence import JACOBIANS
from policy.sampling.start import STARTS
from training.benchmark.candidates import Candidate, load_pcm_files
from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports.convergence import format_convergence
from training.benchmark.reports.convergence_curves import (
    ACCELERATED,
    STIFFNESS,
    Setting,
    curves,
    follow_newton,
    follow_picard,
    follow_predictions,
    state_errors,
)
from training.benchmark.reports.convergence_states import equal_rewards, mapped_samplers
from training.benchmark.run import main
from training.benchmark.tables import table

COLUMNS = "sampler,solver,jacobian,start,stiffness,steps,iterations,depth,error_p50,error_p95"


@pytest.fixture
def setting(policy_with_covariance: DiffusionPolicy, observations: Tensor) -> Setting:
    return Setting(policy=policy_with_covariance, observations=observations, iterations=20, seed=0)


def picard(steps: int, jacobian: str, start: str, solver: str = "ddim") -> SamplerConfig:
    return SamplerConfig("picard", solver, steps, picard=PicardConfig(jacobian, start))


@pytest.mark.parametrize(("jacobian", "start"), [("drift", "fresh"), ("preconditioned", "gaussian")])
def test_following_an_iteration_gives_the_errors_of_the_policys_predictions(
    setting: Setting, jacobian: str, start: str
) -> None:
    sampler = picard(6, jacobian, start)
    iterated = list(follow_picard(sampler, setting))[1:]
    predicted = list(follow_predictions(Candidate(sampler, 0), setting))
    assert [point[:2] for point in predicted] == [point[:2] for point in iterated][: len(predicted)]
    assert len(predicted) >= 4
    for point, expected in zip(predicted, iterated, strict=False):
        assert point.error_p50 == pytest.approx(expected.error_p50, abs=1e-5)
        assert point.error_p95 == pytest.approx(expected.error_p95, abs=1e-5)
    assert predicted[1].error_p95 > 0.01


def test_every_curve_ends_at_the_sequential_answer(setting: Setting) -> None:
    config = BenchmarkConfig(report="convergence", steps=[4])
    followed = curves(config, [])
    kinds = {(curve.sampler, curve.jacobian, curve.start) for curve in followed}
    assert kinds >= {("picard", jacobian, start) for jacobian in JACOBIANS for start in STARTS}
    assert kinds >= {("newton", "newton", start) for start in STARTS}
    assert kinds >= {("picard_memory_2", *kind) for kind in ACCELERATED}
    assert ("parasolver", "drift", "held") in kinds
    for curve in followed:
        last = list(curve.follow(setting))[-1]
        assert last.error_p95 < 1e-5, curve.columns
        assert curve.sampler in ("newton", "parasolver") or last.depth <= 4


def test_an_iteration_of_newtons_method_is_as_deep_as_the_states_that_it_changes(setting: Setting) -> None:
    depths = [point.depth for point in follow_newton(picard(6, "auto", "gaussian"), setting)]
    assert len(depths) >= 3
    assert depths == [1, 6, 10, 13, 15, 16][: len(depths)]


def test_a_pcm_is_followed_at_the_steps_that_it_was_trained_for(
    setting: Setting, policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    config = BenchmarkConfig(report="convergence", steps=[])
    files = load_pcm_files([str(pcm_path)], policy_with_covariance)
    untrained, *followed = curves(config, files)
    assert (untrained.sampler, untrained.stiffness) == ("untrained", None)
    assert [(curve.sampler, curve.stiffness) for curve in followed] == [
        (sampler, stiffness) for sampler in ("pcm_feature", "pcm_parameter") for stiffness in STIFFNESS
    ]
    assert {(curve.steps, curve.jacobian, curve.start) for curve in (untrained, *followed)} == {
        (5, "drift", "fresh")
    }
    found = [point.error_p95 for point in untrained.follow(setting)]
    expected = [point.error_p95 for point in follow_picard(picard(5, "drift", "fresh"), setting)][1:]
    assert found == pytest.approx(expected[: len(found)], rel=1e-3, abs=1e-4)
    # It is switched off after one iteration if s ≥ K = 2, and never if s = 0.
    never, soon, at_once = (list(followed[index].follow(setting)) for index in (6, 7, -1))
    assert never[-1].error_p95 > 1e-2
    assert soon == at_once
    assert soon[-1].error_p95 < never[-1].error_p95
    assert {str(curve.decisive) for curve in followed if curve.stiffness} == {str(followed[1].decisive)}


def test_report_is_written_and_goes_on_where_it_was(
    benchmark_arguments: list[str],
    pcm_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    squeeze: Callable[[str], str],
) -> None:
    arguments = [*benchmark_arguments, "report=convergence", f"pcm=[{pcm_path}]", "steps=[3]", "iterations=2"]
    assert main(arguments) == 0
    assert "T = 5" in capsys.readouterr().out
    text = (tmp_path / "out" / "convergence.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(text.splitlines()))
    at_5 = {(row["sampler"], row["stiffness"] != "") for row in rows if row["steps"] == "5"}
    assert at_5 == {("untrained", False), ("pcm_feature", True), ("pcm_parameter", True)}
    assert {row["stiffness"] for row in rows if row["steps"] == "3"} == {""}
    assert {row["iterations"] for row in rows} == {"0", "1", "2"}
    report = squeeze((tmp_path / "out" / "convergence.md").read_text())
    for part in (
        "### T = 3",
        "| picard | preconditioned | gaussian |",
        "### Newton's method",
        "checkpoint_sha256",
    ):
        assert part in report
    for picture in ("convergence.png", "convergence_heatmap.png", "convergence_summary.png"):
        assert imageio.imread(tmp_path / "out" / picture).std() > 5  # not blank
        assert f"({picture})" in report

    saved = sorted((tmp_path / "out" / "convergence_rows").glob("*.json"))
    kept = saved[0].stat().st_mtime_ns
    saved[-1].unlink()
    assert main(arguments) == 0
    assert sorted((tmp_path / "out" / "convergence_rows").glob("*.json")) == saved
    assert saved[0].stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "convergence.csv").read_text() == text


def test_table_leaves_out_depths_that_are_not_there(setting: Setting, squeeze: Callable[[str], str]) -> None:
    followed = curves(BenchmarkConfig(report="convergence", steps=[3], iterations=1), [])[:1]
    points = list(follow_picard(picard(3, "jacobi", "fresh"), setting))[:2]
    rows = table([{**followed[0].columns, **point._asdict()} for point in points])
    header, _, first, *_ = squeeze(format_convergence(rows)).splitlines()[2:]
    assert header == "| sampler | jacobian | start | s | depth 1 | depth 2 | depth 3 |"
    assert first.startswith("| picard | jacobi | fresh | | ")
    assert first.endswith(" | | |")


def test_each_iteration_makes_one_more_state_exact(setting: Setting) -> None:
    followed = list(state_errors(picard(6, "drift", "fresh"), setting))
    assert [depth for depth, _ in followed] == [0, 1, 2, 3, 4, 5, 6]
    for iteration, (_, errors) in enumerate(followed):
        assert errors.shape == (3, 7)
        assert errors[:, : iteration + 1].max() < 1e-4
    assert followed[2][1][:, 3].min() > 1e-3


@pytest.mark.parametrize("stiffness", [0.0, 1.0])
def test_states_with_a_pcm_are_those_of_the_policy(
    setting: Setting, policy_with_covariance: DiffusionPolicy, pcm_path: Path, stiffness: float
) -> None:
    (file,) = load_pcm_files([str(pcm_path)], policy_with_covariance)
    config = BenchmarkConfig(report="convergence", steps=[4])
    plain, preconditioned, *others, with_pcm = mapped_samplers(config, [file])
    assert [mapped.problem for mapped in (plain, preconditioned)] == ["DDIM, T = 4"] * 2
    assert [mapped.problem for mapped in (*others, with_pcm)] == ["DDIM, T = 5"] * 3
    assert (with_pcm.name, with_pcm.file) == ("PCM", file)
    sampler = replace(with_pcm.sampler, pcm=PcmConfig("parameter", stiffness))
    found = list(state_errors(sampler, setting, file=file))[1:]
    for point, (depth, errors) in zip(
        follow_predictions(Candidate(sampler, 0, file), setting), found, strict=False
    ):
        assert point.depth == depth
        assert point.error_p95 == pytest.approx(np.percentile(errors[:, -1], 95), abs=1e-5)


def test_the_shallowest_sequential_samplers_of_equal_reward_are_marked(tmp_path: Path) -> None:
    path = tmp_path / "rewards.csv"
    path.write_text(
        "method,solver,steps,reward_200,reward_200_low\n"
        "sequential,ddim,50,0.95,0.90\n"
        "sequential,ddim,8,0.91,0.85\n"
        "sequential,ddim,4,0.80,0.70\n"
        "sequential,dpmpp_2m,5,0.92,0.88\n"
        "sequential,dpmpp_2m,3,,\n"
        "picard,ddim,3,0.99,0.95\n"
    )
    assert equal_rewards(str(path)) == [("DDIM", 50), ("DDIM", 8), ("DPM-Solver++", 5)]
    assert equal_rewards(None) == []
    path.write_text("method,solver\n")
    with pytest.raises(ValueError, match="columns reward_200, reward_200_low, steps are missing"):
        equal_rewards(str(path))


def test_wrong_input_is_named(
    policy: DiffusionPolicy, benchmark_arguments: list[str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    policy.save(tmp_path / "policy.safetensors")
    message = "has no covariance; add it with pcm-estimate-covariance"
    assert message in refusal(*benchmark_arguments, "report=convergence")
    assert "convergence, " in refusal(*benchmark_arguments, "report=beauty")


def test_nothing_to_follow_is_refused(benchmark_arguments: list[str], refusal: Callable[..., str]) -> None:
    message = refusal(*benchmark_arguments, "report=convergence", "steps=[]")
    assert message == "error: there is nothing to follow: steps and pcm are both empty"
