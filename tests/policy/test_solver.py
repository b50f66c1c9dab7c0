from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from policy.sampling import sample_sequential
from policy.schedule import squared_cosine_alphas_cumprod
from policy.solver import ddim_solver, ddpm_solver

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
STEPS = [4, 8, 10, 16, 25, 50, 100]
DIFFUSERS_CONFIG = {
    "num_train_timesteps": 100,
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": True,
    "prediction_type": "epsilon",
}


def noise_predictor(x: Tensor, timestep: int) -> Tensor:
    """A smooth nonlinear ε(x, t) that, like a trained one, is about x where there is nothing but noise."""
    return x + 0.3 * torch.sin(3 * x.roll(1, -2) + 0.1 * timestep) * (1 - timestep / 100)


def denoise_with(solver_timesteps: Tensor, alphas_cumprod: Tensor):
    def denoise(states: Tensor, steps: slice) -> Tensor:
        predictions = []
        for x, i in zip(states.unbind(1), range(*steps.indices(len(solver_timesteps))), strict=True):
            alpha = alphas_cumprod[i]
            epsilon = noise_predictor(x, int(solver_timesteps[i]))
            predictions.append(((x - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()).clamp(-1, 1))
        return torch.stack(predictions, 1)

    return denoise


def test_schedule_equals_diffusers() -> None:
    expected = DDIMScheduler(**DIFFUSERS_CONFIG).alphas_cumprod.double()
    torch.testing.assert_close(ALPHAS_CUMPROD, expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("steps", STEPS)
def test_ddim_equals_diffusers(steps: int) -> None:
    scheduler = DDIMScheduler(**DIFFUSERS_CONFIG, set_alpha_to_one=True, steps_offset=0)
    scheduler.set_timesteps(steps)
    x0 = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps))
    expected = [x0]
    for timestep in scheduler.timesteps:
        epsilon = noise_predictor(expected[-1], int(timestep))
        step = scheduler.step(epsilon, timestep, expected[-1], use_clipped_model_output=True)
        expected.append(step.prev_sample)

    solver = ddim_solver(ALPHAS_CUMPROD, steps).to("cpu", torch.float32)
    states = sample_sequential(denoise_with(solver.timesteps, solver.alphas_cumprod), solver, x0)
    assert solver.timesteps.tolist() == scheduler.timesteps.tolist()
    torch.testing.assert_close(states, torch.stack(expected, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_ddpm_equals_diffusers_given_the_same_noises(steps: int) -> None:
    scheduler = DDPMScheduler(**DIFFUSERS_CONFIG, variance_type="fixed_small")
    scheduler.set_timesteps(steps)
    x0 = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps))
    generator = torch.Generator().manual_seed(7)
    expected = [x0]
    for timestep in scheduler.timesteps:
        epsilon = noise_predictor(expected[-1], int(timestep))
        expected.append(scheduler.step(epsilon, int(timestep), expected[-1], generator=generator).prev_sample)

    generator.manual_seed(7)
    # diffusers draws no noise for its last step; ours has weight 0 there.
    step_noise = torch.stack([torch.randn(x0.shape, generator=generator) for _ in range(steps)], 1)
    solver = ddpm_solver(ALPHAS_CUMPROD, steps).to("cpu", torch.float32)
    states = sample_sequential(denoise_with(solver.timesteps, solver.alphas_cumprod), solver, x0, step_noise)
    torch.testing.assert_close(states, torch.stack(expected, 1), atol=1e-5, rtol=0)


@given(steps=st.integers(1, 100), build=st.sampled_from([ddim_solver, ddpm_solver]))
def test_solver_is_strictly_causal_and_ends_clean(steps: int, build) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    assert solver.steps == steps
    assert torch.equal(solver.C, solver.C.tril(-1))
    assert solver.N is None or torch.equal(solver.N, solver.N.tril(-1))
    assert (solver.timesteps.diff() < 0).all()
    assert solver.alphas_cumprod[-1] == 1
    # The last state is the last data prediction and nothing else.
    assert solver.a[-1] == 0
    torch.testing.assert_close(solver.C[-1], torch.eye(steps, dtype=torch.float64)[-1])


@given(steps=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_ddim_keeps_a_point_mass_on_its_noise_levels(steps: int, seed: int) -> None:
    """If the data are one point p, state i is √ᾱ_i·p + √(1−ᾱ_i)·ε with the same ε for all i."""
    generator = torch.Generator().manual_seed(seed)
    point, epsilon = torch.rand(2, 1, 4, 2, generator=generator, dtype=torch.float64) * 2 - 1
    solver = ddim_solver(ALPHAS_CUMPROD, steps)
    alpha = solver.alphas_cumprod[:, None, None]
    expected = alpha.sqrt() * point[:, None] + (1 - alpha).sqrt() * epsilon[:, None]
    states = sample_sequential(lambda states, steps: point[:, None], solver, expected[:, 0])
    torch.testing.assert_close(states, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_impossible_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps must be in 1 … 100 .* got {steps}"):
        ddim_solver(ALPHAS_CUMPROD, steps)


def test_step_noise_goes_with_stochastic_solvers_only() -> None:
    x0 = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="step_noise"):
        sample_sequential(lambda states, steps: states, ddpm_solver(ALPHAS_CUMPROD, 4), x0)
    with pytest.raises(ValueError, match="step_noise"):
        sample_sequential(lambda s, steps: s, ddim_solver(ALPHAS_CUMPROD, 4), x0, torch.zeros(1, 4, 4, 2))
