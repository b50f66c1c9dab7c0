"""Policies that were trained for a solver of their own: MIP's regression, and distilled consistency."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from policy import CheckpointError, DiffusionPolicy, PicardConfig, SamplerConfig, StopConfig
from policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from policy.policy_file import POLICY_FORMAT
from policy.runtime import Runtime
from policy.runtime.chunk_function import ChunkFunction
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "pusht_small.safetensors"


@pytest.fixture
def mip(policy: DiffusionPolicy) -> DiffusionPolicy:
    return replace(policy, objective="mip")


@pytest.fixture
def consistency(policy: DiffusionPolicy) -> DiffusionPolicy:
    return replace(policy, objective="consistency")


def outputs(policy: DiffusionPolicy, observations: Tensor, states: Tensor, timestep: int) -> Tensor:
    condition = policy.normalizer.observation.normalize(observations).flatten(1)
    with torch.no_grad():
        return policy.network(states, torch.full((len(states),), timestep), condition)


def test_mip_answers_by_two_evaluations_from_zero(mip: DiffusionPolicy, observations: Tensor) -> None:
    first = outputs(mip, observations, torch.zeros(3, 16, 2), 99).clamp(-1, 1)
    second = outputs(mip, observations, first, 10).clamp(-1, 1)
    found = mip.predict(observations)
    torch.testing.assert_close(found.actions, mip.normalizer.action.unnormalize(second), atol=1e-3, rtol=0)
    assert found.depth == 2
    assert torch.equal(found.actions, mip.predict(observations, noise=torch.ones(3, 16, 2)).actions)


@pytest.mark.parametrize("steps", [1, 3])
def test_consistency_predicts_the_answer_and_adds_noise_again(
    consistency: DiffusionPolicy, observations: Tensor, steps: int
) -> None:
    alphas = squared_cosine_alphas_cumprod(100).float()
    drawn = torch.randn(3, steps, 16, 2, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(0))
    state, prediction = noise, noise
    for i, timestep in enumerate([90, 60, 30][:steps]):
        if i:
            state = alphas[timestep].sqrt() * prediction + (1 - alphas[timestep]).sqrt() * drawn[:, i - 1]
        epsilon = outputs(consistency, observations, state, timestep)
        prediction = ((state - (1 - alphas[timestep]).sqrt() * epsilon) / alphas[timestep].sqrt()).clamp(
            -1, 1
        )
    sampled = consistency.with_sampler(SamplerConfig(steps=steps))
    found = sampled.predict(observations, noise=noise, generator=torch.Generator().manual_seed(1))
    expected = consistency.normalizer.action.unnormalize(prediction)
    torch.testing.assert_close(found.actions, expected, atol=1e-2, rtol=0)
    assert found.depth == steps


def test_a_file_says_what_its_policy_was_trained_for(mip: DiffusionPolicy, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    mip.save(path)
    assert DiffusionPolicy.load(path).objective == "mip"
    checkpoint = load_checkpoint(path, POLICY_FORMAT)
    save_checkpoint(
        path, Checkpoint(checkpoint.tensors, {**checkpoint.header, "objective": "flow"}), POLICY_FORMAT
    )
    with pytest.raises(CheckpointError, match="objective must be one of noise, mip, consistency, got 'flow'"):
        DiffusionPolicy.load(path)


def test_the_shipped_file_is_written_again_as_it_is(tmp_path: Path) -> None:
    again = tmp_path / "policy.safetensors"
    DiffusionPolicy.load(SHIPPED).save(again)
    with safe_open(again, "pt") as new, safe_open(SHIPPED, "pt") as shipped:
        assert new.metadata() == shipped.metadata()  # with the hash of all tensors


def test_engines_and_graphs_need_not_know_what_a_network_was_trained_for(
    mip: DiffusionPolicy, observations: Tensor
) -> None:
    expected = mip.predict(observations).actions
    runtime = Runtime(mip, batch_size=3, engine="eager")
    torch.testing.assert_close(runtime.predict(observations).actions, expected, atol=1e-3, rtol=0)
    found = ChunkFunction(mip)(observations, torch.randn(3, 16, 2))[1]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("objective", "sampler", "message"),
    [
        (
            "noise",
            SamplerConfig(solver="mip"),
            "one of ddim, .*, unipc for a policy .* objective=noise, got 'mip'",
        ),
        ("noise", SamplerConfig(solver="consistency"), "objective=noise, got 'consistency'"),
        ("mip", SamplerConfig(solver="ddim"), "sampler.solver must be one of mip for a policy .* got 'ddim'"),
        ("mip", SamplerConfig(steps=3), "the solver mip has 2 steps, got 3"),
        ("mip", SamplerConfig("picard"), "sampler.method=picard needs a policy that begins with noise"),
        ("consistency", SamplerConfig(steps=11), "the solver consistency has 1 … 10 steps, got 11"),
        ("consistency", SamplerConfig("picard", steps=2), "needs a deterministic solver"),
    ],
)
def test_samplers_that_a_network_was_not_trained_for_are_refused(
    policy: DiffusionPolicy, objective: str, sampler: SamplerConfig, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(policy, objective=objective).with_sampler(sampler)


def test_a_consistency_policy_is_a_policy_of_noise_as_well(
    consistency: DiffusionPolicy, observations: Tensor
) -> None:
    sampler = SamplerConfig("picard", "ddim", 4, stop=StopConfig(2), picard=PicardConfig("drift"))
    assert consistency.with_sampler(sampler).predict(observations).depth == 2
