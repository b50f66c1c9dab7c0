from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from training.benchmark.candidates import Candidate, candidates, load_pcm_files, pcm_candidates
from training.benchmark.config import BenchmarkConfig, RewardsConfig
from training.benchmark.measurements import accuracy_measure


def test_depth_is_what_the_sampler_takes(
    policy_with_covariance: DiffusionPolicy, observations: torch.Tensor, pcm_path: Path
) -> None:
    options = RewardsConfig(ddim_steps=[4, 3], dpmpp_2m_steps=[2], depths=[4, 2, 1], stiffness=[1.0])
    config = BenchmarkConfig(report="rewards", steps=[3, 5], rewards=options)
    rows = candidates(config, load_pcm_files([str(pcm_path)], policy_with_covariance))
    for row in rows:
        prediction = row.policy(policy_with_covariance).predict(observations)
        assert prediction.depth == row.depth, row.label
        bound = row.evaluations * (2 if row.sampler.pcm.space == "feature" else 1)
        assert row.depth <= prediction.network_evaluations / len(observations) <= bound
    labels = [row.label for row in rows]
    assert len(set(labels)) == len(labels)
    assert "sequential, dpmpp_2m, T = 2" in labels
    assert "picard, ddim, drift, fresh, T = 3, depth 1" in labels
    assert "picard, ddim, preconditioned, gaussian, T = 3, depth 2" in labels
    assert "picard, ddim, drift, fresh, memory 3, T = 5, depth 4" in labels
    assert "picard, dpmpp_2m, preconditioned, gaussian, T = 5, depth 4" in labels
    assert "parasolver, ddim, T = 5, depth 4" in labels
    # Its one call is that of the start, which leaves no iteration.
    assert "picard, ddim, preconditioned, gaussian, T = 3, depth 1" not in labels
    assert not any("T = 3, depth 4" in label for label in labels)


def test_a_pcm_is_sampled_as_it_was_trained_and_each_way_once(
    policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    # Trained for K = 2 iterations: from s = 2 on, all stiffnesses leave the first iteration alone to the PCM.
    config = BenchmarkConfig(
        report="rewards", steps=[3], rewards=RewardsConfig(depths=[3, 1], stiffness=[1, 2, 4])
    )
    rows = [
        row
        for row in candidates(config, load_pcm_files([str(pcm_path)], policy_with_covariance))
        if row.pcm is not None
    ]
    assert {(row.sampler.steps, row.sampler.picard.jacobian, row.sampler.picard.start) for row in rows} == {
        (5, "drift", "fresh")
    }

    def ways(space: str) -> list[tuple[int, float]]:
        return [(row.depth, row.sampler.pcm.stiffness) for row in rows if row.sampler.pcm.space == space]

    assert ways("parameter") == [(3, 1), (1, 1), (3, 2)]
    assert ways("feature") == [(3, 1)]  # with weights 1, 1/2, 0; all else is parameter space again


def test_identities_differ_between_files_and_samplers(
    policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    config = BenchmarkConfig(report="rewards", steps=[3], rewards=RewardsConfig(depths=[2]))
    rows = candidates(config, load_pcm_files([str(pcm_path)], policy_with_covariance))
    identities = [str(row.identity) for row in rows]
    assert len(set(identities)) == len(identities)
    with_pcm = next(row for row in rows if row.pcm is not None)
    assert with_pcm.identity != replace(with_pcm, pcm=None).identity


def test_files_of_the_same_name_are_refused(
    policy_with_covariance: DiffusionPolicy, pcm_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = shutil.copy(pcm_path, tmp_path / "other")
    with pytest.raises(ValueError, match="two files are called adapters"):
        load_pcm_files([str(pcm_path), str(other)], policy_with_covariance)


def test_errors_are_those_to_the_same_solvers_answer(
    policy_with_covariance: DiffusionPolicy, observations: torch.Tensor
) -> None:
    measure = accuracy_measure(policy_with_covariance, observations, seed=0, reference_steps=5)
    for solver in ("ddim", "dpmpp_2m"):
        row = measure(Candidate(SamplerConfig("picard", solver, 5), 5))
        assert row["error_p95"] < 1e-4
        assert (row["error_p95_reference"] < 1e-4) == (solver == "ddim")


def test_a_pcm_is_compared_on_the_solver_that_it_was_trained_for(
    policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    (file,) = load_pcm_files([str(pcm_path)], policy_with_covariance)
    file = replace(file, pcm=replace(file.pcm, solver="dpmpp_2m"))
    rows = pcm_candidates(file, [3, 1], [1.0])
    assert rows
    assert {row.sampler.solver for row in rows} == {"dpmpp_2m"}


def test_a_candidate_leaves_nothing_to_choose(
    policy_with_covariance: DiffusionPolicy, pcm_path: Path
) -> None:
    # What was measured is found again by the sampler, however it was asked for.
    config = BenchmarkConfig(report="rewards", steps=[3], rewards=RewardsConfig(depths=[2]))
    for row in candidates(config, load_pcm_files([str(pcm_path)], policy_with_covariance)):
        assert row.policy(policy_with_covariance).resolved_sampler == row.sampler
