from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from training.benchmark.convergence import format_convergence, measure_convergence
from training.benchmark.run import main


@pytest.fixture
def policy_with_covariance(policy: DiffusionPolicy) -> DiffusionPolicy:
    return replace(policy, covariance=0.1 * torch.eye(32))


def test_errors_are_those_of_the_sampler_and_end_at_0(
    policy_with_covariance: DiffusionPolicy, observations: torch.Tensor
) -> None:
    rows = measure_convergence(policy_with_covariance, observations, [6], 20, seed=0)
    kinds = {(row.formulation, row.initialisation) for row in rows}
    assert len(kinds) == 12
    for row in rows:
        assert row.depth == row.iterations + (row.initialisation == "gaussian")
        assert row.depth < 6 or row.error_p95 < 1e-5

    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(0))
    picard = SamplerConfig("picard", 6, iterations=2, formulation="drift", initialisation="repeated")
    actions, exact = (
        policy_with_covariance.with_sampler(sampler).predict(observations, noise).actions
        for sampler in (picard, SamplerConfig("ddim", 6))
    )
    scale = policy_with_covariance.normalizer.action
    largest = (scale.normalize(actions) - scale.normalize(exact)).abs().amax((1, 2))
    (row,) = [
        row
        for row in rows
        if (row.formulation, row.initialisation, row.iterations) == ("drift", "repeated", 2)
    ]
    assert row.error_p50 == pytest.approx(largest.median().item(), rel=1e-3)


def test_report_is_written(
    policy_with_covariance: DiffusionPolicy,
    small_demonstrations: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy_with_covariance.save(tmp_path / "policy.safetensors")
    arguments = [
        f"checkpoint={tmp_path}/policy.safetensors",
        f"demonstrations={small_demonstrations}",
        f"output_dir={tmp_path}/out",
        "conditions=2",
        "held_out_episodes=1",
        "steps=[3,4]",
        "iterations=2",
    ]
    assert main(arguments) == 0
    with open(tmp_path / "out" / "convergence.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["steps"] for row in rows} == {"3", "4"}
    report = (tmp_path / "out" / "convergence.md").read_text()
    assert "### T = 3" in report
    assert "| preconditioned | gaussian |" in report
    assert "checkpoint_sha256" in report
    assert (tmp_path / "out" / "convergence.png").stat().st_size > 10_000
    assert "T = 4" in capsys.readouterr().out


def test_table_leaves_out_depths_that_are_not_there(
    policy_with_covariance: DiffusionPolicy, observations: torch.Tensor
) -> None:
    rows = measure_convergence(policy_with_covariance, observations, [3], 1, seed=0)
    header, _, first, *_ = format_convergence(rows, depths=(1, 2, 5)).splitlines()[2:]
    assert header == "| formulation | initial trajectory | depth 1 | depth 2 |"
    assert first.startswith("| jacobi | fresh | ")
    assert first.endswith("|  |")  # only one iteration was asked for


def test_wrong_input_is_named(
    policy: DiffusionPolicy, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no covariance; add it with pcm-estimate-covariance"):
        measure_convergence(policy, torch.zeros(1, 2, 20), [3], 1, seed=0)
    assert main(["demonstrations=nowhere", "report=beauty"]) == 1
    assert "report must be one of convergence, got 'beauty'" in capsys.readouterr().err
