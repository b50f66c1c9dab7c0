from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from policy.sampling.recurrence import FORMULATIONS
from policy.sampling.start import INITIALISATIONS
from training.benchmark.candidates import load_pcm_files
from training.benchmark.config import BenchmarkConfig
from training.benchmark.reports.convergence import convergence_row
from training.benchmark.reports.convergence_curves import (
    ACCELERATED,
    STIFFNESS,
    Setting,
    curves,
    follow_newton,
    follow_picard,
    follow_predictions,
)
from training.benchmark.reports.convergence_layout import format_convergence
from training.benchmark.run import main

COLUMNS = "sampler,formulation,initialisation,stiffness,steps,iterations,depth,error_p50,error_p95"


@pytest.fixture
def setting(policy_with_covariance: DiffusionPolicy, observations: Tensor) -> Setting:
    return Setting(policy_with_covariance, observations, 20, seed=0)


@pytest.mark.parametrize(
    ("formulation", "initialisation"), [("drift", "fresh"), ("preconditioned", "gaussian")]
)
def test_following_an_iteration_gives_the_errors_of_the_policys_predictions(
    setting: Setting, formulation: str, initialisation: str
) -> None:
    sampler = SamplerConfig("picard", "ddim", 6, picard=PicardConfig(formulation, initialisation))
    iterated = list(follow_picard(6, formulation, initialisation, setting))[1:]
    predicted = list(follow_predictions(sampler, None, setting))
    assert [point[:2] for point in predicted] == [point[:2] for point in iterated][: len(predicted)]
    assert len(predicted) >= 4
    for point, expected in zip(predicted, iterated, strict=False):
        assert point.error_p50 == pytest.approx(expected.error_p50, abs=1e-5)
        assert point.error_p95 == pytest.approx(expected.error_p95, abs=1e-5)
    assert predicted[1].error_p95 > 0.01


def test_every_curve_ends_at_the_sequential_answer(setting: Setting) -> None:
    config = BenchmarkConfig("convergence", "", "", "", steps=[4])
    followed = curves(config, [])
    kinds = {(curve.sampler, curve.formulation, curve.initialisation) for curve in followed}
    assert kinds >= {("picard", f, i) for f in FORMULATIONS for i in INITIALISATIONS}
    assert kinds >= {("newton", "newton", i) for i in INITIALISATIONS}
    assert kinds >= {("picard_memory_2", *kind) for kind in ACCELERATED}
    assert ("parasolver", "drift", "parasolver") in kinds
    for curve in followed:
        last = list(curve.follow(setting))[-1]
        assert last.error_p95 < 1e-5, curve.label
        assert curve.sampler in ("newton", "parasolver") or last.depth <= 4


def test_an_iteration_of_newtons_method_is_as_deep_as_the_states_that_it_changes(setting: Setting) -> None:
    depths = [point.depth for point in follow_newton(6, "gaussian", setting)]
    assert len(depths) >= 3
    assert depths == [1, 6, 10, 13, 15, 16][: len(depths)]


def test_a_pcm_is_followed_at_the_steps_that_it_was_trained_for(
    setting: Setting, policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    config = BenchmarkConfig("convergence", "", "", "", steps=[])
    files = load_pcm_files([str(pcm_path)], policy_with_covariance)
    untrained, *followed = curves(config, files)
    assert (untrained.sampler, untrained.stiffness) == ("untrained", None)
    assert [(curve.sampler, curve.stiffness) for curve in followed] == [
        (sampler, stiffness) for sampler in ("pcm", "pcm_lora") for stiffness in STIFFNESS
    ]
    assert {(curve.steps, curve.formulation, curve.initialisation) for curve in (untrained, *followed)} == {
        (5, "drift", "fresh")
    }
    found = [point.error_p95 for point in untrained.follow(setting)]
    expected = [point.error_p95 for point in follow_picard(5, "drift", "fresh", setting)][1:]
    assert found == pytest.approx(expected[: len(found)], rel=1e-3, abs=1e-4)
    # It is switched off after one iteration if s ≥ K = 2, and never if s = 0.
    never, soon, at_once = (list(followed[index].follow(setting)) for index in (6, 7, -1))
    assert never[-1].error_p95 > 1e-2
    assert soon == at_once
    assert soon[-1].error_p95 < never[-1].error_p95
    assert {str(curve.decisive) for curve in followed if curve.stiffness} == {str(followed[1].decisive)}


def test_report_is_written_and_goes_on_where_it_was(
    benchmark_arguments: list[str], pcm_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*benchmark_arguments, "report=convergence", f"pcm=[{pcm_path}]", "steps=[3]", "iterations=2"]
    assert main(arguments) == 0
    assert "T = 5" in capsys.readouterr().out
    text = (tmp_path / "out" / "convergence.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    rows = list(csv.DictReader(text.splitlines()))
    at_5 = {(row["sampler"], row["stiffness"] != "") for row in rows if row["steps"] == "5"}
    assert at_5 == {("untrained", False), ("pcm", True), ("pcm_lora", True)}
    assert {row["stiffness"] for row in rows if row["steps"] == "3"} == {""}
    assert {row["iterations"] for row in rows} == {"0", "1", "2"}
    report = (tmp_path / "out" / "convergence.md").read_text()
    for part in (
        "### T = 3",
        "| picard | preconditioned | gaussian |",
        "### Newton's method",
        "checkpoint_sha256",
    ):
        assert part in report
    assert (tmp_path / "out" / "convergence.png").stat().st_size > 10_000

    saved = sorted((tmp_path / "out" / "convergence_rows").glob("*.json"))
    kept = saved[0].stat().st_mtime_ns
    saved[-1].unlink()
    assert main(arguments) == 0
    assert sorted((tmp_path / "out" / "convergence_rows").glob("*.json")) == saved
    assert saved[0].stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "convergence.csv").read_text() == text


def test_table_leaves_out_depths_that_are_not_there(setting: Setting) -> None:
    followed = curves(BenchmarkConfig("convergence", "", "", "", steps=[3], iterations=1), [])[:1]
    points = list(follow_picard(3, "jacobi", "fresh", setting))[:2]
    rows = [convergence_row(followed[0], point) for point in points]
    header, _, first, *_ = format_convergence(rows).splitlines()[2:]
    assert header == "| sampler | formulation | initial trajectory | s | depth 1 | depth 2 | depth 3 |"
    assert first.startswith("| picard | jacobi | fresh |  | ")
    assert first.endswith(" |  |  |")


def test_wrong_input_is_named(
    policy: DiffusionPolicy, benchmark_arguments: list[str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    policy.save(tmp_path / "policy.safetensors")
    message = "has no covariance; add it with pcm-estimate-covariance"
    assert message in refusal(*benchmark_arguments, "report=convergence")
    assert "convergence, " in refusal(*benchmark_arguments, "report=beauty")
