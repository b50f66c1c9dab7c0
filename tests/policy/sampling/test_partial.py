"""Partial denoising against loops of diffusers that begin in between."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from policy import DiffusionPolicy, PartialConfig, SamplerConfig
from policy.prediction import Prediction
from policy.solvers import SOLVERS

SHARED = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
SCHEDULERS: dict[str, Any] = {
    "ddim": lambda: DDIMScheduler(**SHARED, clip_sample=True, set_alpha_to_one=True),
    "dpmpp_2m": lambda: DPMSolverMultistepScheduler(**SHARED, solver_order=2, final_sigmas_type="zero"),
    "deis": lambda: DEISMultistepScheduler(**SHARED, solver_order=3),
    "unipc": lambda: UniPCMultistepScheduler(
        **SHARED, solver_order=2, solver_type="bh2", final_sigmas_type="zero"
    ),
}
EXECUTED = 5


def partial(solver: str, steps: int, last: int, noise: str = "fresh") -> SamplerConfig:
    return SamplerConfig("sequential", solver, steps, partial=PartialConfig(last, noise))


def noise(seed: int) -> Tensor:
    return torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def previous(policy: DiffusionPolicy, observations: Tensor) -> Prediction:
    return policy.with_sampler(SamplerConfig("sequential", "ddim", 4)).predict(
        observations + 3, noise=noise(1)
    )


def moved_on(policy: DiffusionPolicy, previous: Prediction) -> Tensor:
    """The previous actions after 5 control steps, normalised, continued by 0.7, 0.7², … of the last velocity."""
    actions = policy.normalizer.action.normalize(previous.actions)
    rows = list(actions.unbind(1))
    velocity = rows[-1] - rows[-2]
    for _ in range(EXECUTED):
        velocity = 0.7 * velocity
        rows.append(rows[-1] + velocity)
    return torch.stack(rows[EXECUTED:], 1).clamp(-1, 1)


@torch.no_grad()
def denoised(
    policy: DiffusionPolicy, observations: Tensor, state: Tensor, *, solver: str, timesteps: Tensor
) -> Tensor:
    """The state at the first of these timesteps, denoised by diffusers' loop and the network: (B, H, A) in px."""
    scheduler = SCHEDULERS[solver]()
    scheduler.set_timesteps(len(timesteps))
    alphas = scheduler.alphas_cumprod.double()
    scheduler.timesteps = timesteps
    scheduler.num_inference_steps = len(timesteps)
    if solver == "ddim":  # it goes back by 100 // T
        scheduler.num_inference_steps = 100 // int(timesteps[0] - timesteps[1])
    else:
        of_steps = torch.cat((alphas[timesteps], torch.ones(1)))
        scheduler.sigmas = ((1 - of_steps) / of_steps).sqrt()
    condition = policy.normalizer.observation.normalize(observations).flatten(1)
    for timestep in timesteps.tolist():
        alpha = alphas[timestep].float()
        epsilon = policy.network(state, torch.full((len(state),), timestep), condition)
        prediction = ((state - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()).clamp(-1, 1)
        last = prediction
        state = scheduler.step(prediction, timestep, state).prev_sample
    # At σ = 0 DEIS of diffusers multiplies 0 with infinity. There every solver returns x̂.
    return policy.normalizer.action.unnormalize(last)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("added", ["fresh", "carried", "none"])
def test_the_last_steps_are_those_of_diffusers_from_the_previous_actions(
    policy: DiffusionPolicy, observations: Tensor, previous: Prediction, name: str, added: str
) -> None:
    sampled = policy.with_sampler(partial(name, 10, 4, added))
    timesteps = sampled.solver.timesteps[-4:]
    alpha = sampled.solver.alphas_cumprod[6]
    carried = torch.cat((previous.noise[:, EXECUTED:], noise(2)[:, -EXECUTED:]), 1)
    zeros = torch.zeros_like(carried)
    z = {"fresh": noise(2), "carried": carried, "none": zeros}[added]
    state = alpha.sqrt() * moved_on(policy, previous) + (1 - alpha).sqrt() * z
    expected = denoised(policy, observations, state, solver=name, timesteps=timesteps)
    found = sampled.predict(observations, noise=noise(2), previous=previous, executed=EXECUTED)
    torch.testing.assert_close(found.actions, expected, atol=0.02, rtol=0)  # of 490 px
    assert found.depth == 4
    assert found.network_evaluations == 3 * 4


@pytest.mark.parametrize("name", SOLVERS)
def test_a_first_chunk_takes_all_steps_and_later_ones_the_last(
    policy: DiffusionPolicy, observations: Tensor, previous: Prediction, name: str
) -> None:
    whole = policy.with_sampler(SamplerConfig("sequential", name, 6))
    sampled = policy.with_sampler(partial(name, 6, 2))

    def predicted(policy: DiffusionPolicy, previous: Prediction | None) -> Prediction:
        generator = torch.Generator().manual_seed(4)
        return policy.predict(observations, noise=noise(2), generator=generator, previous=previous)

    first, later = predicted(sampled, None), predicted(sampled, previous)
    assert (first.depth, later.depth) == (6, 2)
    assert torch.equal(first.actions, predicted(whole, None).actions)
    assert not torch.equal(later.actions, first.actions)


def test_all_steps_from_all_noise_are_the_whole_sampler(
    policy: DiffusionPolicy, observations: Tensor, previous: Prediction
) -> None:
    """Where the previous actions are 0, nothing of them is left but the noise of the first state."""
    centre = policy.normalizer.action.unnormalize(torch.zeros(3, 16, 2))
    previous = replace(previous, actions=centre)
    sampled, whole = (policy.with_sampler(partial("dpmpp_2m", 5, last)) for last in (5, 0))
    level = (1 - sampled.solver.alphas_cumprod[0]).sqrt()
    found = sampled.predict(observations, noise=noise(2) / level, previous=previous).actions
    torch.testing.assert_close(found, whole.predict(observations, noise=noise(2)).actions, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "picard", "partial": PartialConfig(2)},
            "sampler.partial.steps=2 belongs to the method sequential",
        ),
        ({"partial": PartialConfig(0, "none")}, "sampler.partial.noise=none needs sampler.partial.steps"),
        (
            {"steps": 3, "partial": PartialConfig(4)},
            "sampler.partial.steps must be at most sampler.steps 3, got 4",
        ),
        (
            {"solver": "mip", "partial": PartialConfig(1)},
            "sampler.partial.steps does not belong to the solver mip",
        ),
        (
            {"solver": "consistency", "spacing": "karras"},
            "sampler.spacing does not belong to the solver consistency",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        SamplerConfig(**options)
