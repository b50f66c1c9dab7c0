from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from policy.sampling import sample_sequential
from policy.solvers import SOLVERS, SPACINGS, Solver, Spacing, build_solver, ddim, ddpm, dpmpp_2m
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from policy.solvers.timesteps import leading_timesteps, log_snr_timesteps

Build = Callable[[Tensor, int], Solver]
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
    noise = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps))
    expected = [noise]
    for timestep in scheduler.timesteps:
        epsilon = noise_predictor(expected[-1], int(timestep))
        step = scheduler.step(epsilon, timestep, expected[-1], use_clipped_model_output=True)
        expected.append(step.prev_sample)

    solver = ddim(ALPHAS_CUMPROD, steps).to("cpu", torch.float32)
    states = sample_sequential(denoise_with(solver.timesteps, solver.alphas_cumprod), solver, noise)
    assert solver.timesteps.tolist() == scheduler.timesteps.tolist()
    torch.testing.assert_close(states, torch.stack(expected, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", STEPS)
def test_ddpm_equals_diffusers_given_the_same_noises(steps: int) -> None:
    scheduler = DDPMScheduler(**DIFFUSERS_CONFIG, variance_type="fixed_small")
    scheduler.set_timesteps(steps)
    noise = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps))
    generator = torch.Generator().manual_seed(7)
    expected = [noise]
    for timestep in scheduler.timesteps:
        epsilon = noise_predictor(expected[-1], int(timestep))
        expected.append(scheduler.step(epsilon, int(timestep), expected[-1], generator=generator).prev_sample)

    generator.manual_seed(7)
    # diffusers draws no noise for its last step; ours has weight 0 there.
    step_noise = torch.stack([torch.randn(noise.shape, generator=generator) for _ in range(steps)], 1)
    solver = ddpm(ALPHAS_CUMPROD, steps).to("cpu", torch.float32)
    states = sample_sequential(
        denoise_with(solver.timesteps, solver.alphas_cumprod), solver, noise, step_noise=step_noise
    )
    torch.testing.assert_close(states, torch.stack(expected, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 15, 50, 100])
def test_dpm_solver_equals_diffusers(steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    # diffusers rounds to single precision in each step anyway, but ᾱ recomputed from such a σ would be less than that.
    scheduler.alphas_cumprod = ALPHAS_CUMPROD
    solver = dpmpp_2m(ALPHAS_CUMPROD, steps)
    scheduler.set_timesteps(timesteps=solver.timesteps.tolist())
    scheduler.sigmas = ((1 - solver.alphas_cumprod) / solver.alphas_cumprod).sqrt()
    denoise = denoise_with(solver.timesteps, solver.alphas_cumprod)
    noise = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
    expected = [noise]
    for i, timestep in enumerate(scheduler.timesteps):
        prediction = denoise(expected[-1][:, None], slice(i, i + 1))[:, 0]
        expected.append(scheduler.step(prediction, timestep, expected[-1]).prev_sample)

    states = sample_sequential(denoise, solver, noise)
    torch.testing.assert_close(states, torch.stack(expected, 1).double(), atol=1e-5, rtol=0)
    in_float32 = sample_sequential(denoise, solver.to("cpu", torch.float32), noise.float())
    torch.testing.assert_close(in_float32, states.float(), atol=1e-5, rtol=0)


def test_dpm_solver_is_of_second_order() -> None:
    """Against the exact path of one Gaussian, x_t ∝ its standard deviation √(ᾱ_t·s + 1 − ᾱ_t)."""

    def relative_error(build: Build, steps: int) -> float:
        solver = build(
            squared_cosine_alphas_cumprod(8000), steps
        )  # so fine that rounding to it plays no role
        alpha, variance = solver.alphas_cumprod, 0.05
        spread = (alpha * variance + 1 - alpha).sqrt()
        gain = (alpha.sqrt() * variance / spread**2)[:-1, None, None]
        states = sample_sequential(lambda x, i: gain[i] * x, solver, spread[:1, None, None])
        return float((states[0, -2, 0, 0] / spread[-2] - 1).abs())  # before the step to ᾱ = 1

    for steps in (20, 40):
        assert 1.5 < relative_error(ddim, steps) / relative_error(ddim, 2 * steps) < 2.5
        assert relative_error(dpmpp_2m, steps) / relative_error(dpmpp_2m, 2 * steps) > 3


@given(build=st.sampled_from([ddim, ddpm, dpmpp_2m]), steps=st.integers(1, 50))
def test_steps_follow_from_the_map_alone(build: Build, steps: int) -> None:
    """r and W of a solver that is nothing but a, C: those that it was made of."""
    made = build(ALPHAS_CUMPROD, steps)
    told = Solver(made.timesteps, made.alphas_cumprod, made.a, made.C, made.N)
    assert "W" not in vars(told)
    torch.testing.assert_close(told.r, made.r, atol=1e-12, rtol=0)
    torch.testing.assert_close(told.W, made.W, atol=1e-9, rtol=0)
    assert bool(told.W.tril(-1).any()) == bool(made.W.tril(-1).any())


@given(build=st.sampled_from([ddim, dpmpp_2m]), steps=st.integers(1, 25), seed=st.integers(0, 1000))
def test_steps_are_the_same_map_as_the_unrolled_one(build: Build, steps: int, seed: int) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    denoise = denoise_with(solver.timesteps, solver.alphas_cumprod)
    x = torch.randn((2, 4, 2), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    states = sample_sequential(denoise, solver, x)
    predictions = []
    for i in range(steps):
        predictions.append(denoise(x[:, None], slice(i, i + 1))[:, 0])
        x = solver.r[i] * x + sum(W * p for W, p in zip(solver.W[i], predictions, strict=False))
        torch.testing.assert_close(x, states[:, i + 1], atol=1e-9, rtol=0)


@given(steps=st.integers(1, 100))
def test_log_snr_timesteps_are_distinct_and_even(steps: int) -> None:
    timesteps = log_snr_timesteps(ALPHAS_CUMPROD, steps)
    assert len(timesteps) == steps
    assert timesteps[0] <= 99
    assert (timesteps.diff() < 0).all()
    assert steps == 1 or timesteps[-1] == 0
    if 2 < steps <= 10:
        distances = torch.special.logit(ALPHAS_CUMPROD[timesteps]).diff()
        assert distances.max() < 1.5 * distances.min()
        leading = torch.special.logit(ALPHAS_CUMPROD[leading_timesteps(ALPHAS_CUMPROD, steps)]).diff()
        assert leading.max() > 1.5 * leading.min()


@given(
    steps=st.integers(1, 100),
    name=st.sampled_from([*SOLVERS]),
    spacing=st.sampled_from([None, *SPACINGS.values()]),
    last=st.integers(0, 100),
)
def test_solver_is_strictly_causal_and_ends_clean(
    steps: int, name: str, spacing: Spacing | None, last: int
) -> None:
    last = min(last, steps)
    solver = build_solver(name, ALPHAS_CUMPROD, steps, spacing=spacing, last=last)
    steps = last or steps
    assert solver.steps == steps
    assert torch.equal(solver.C, solver.C.tril(-1))
    assert solver.N is None or torch.equal(solver.N, solver.N.tril(-1))
    assert (solver.timesteps.diff() < 0).all()
    assert solver.alphas_cumprod[-1] == 1
    # The last state is the last data prediction and nothing else.
    assert solver.a[-1] == 0
    torch.testing.assert_close(solver.C[-1], torch.eye(steps, dtype=torch.float64)[-1])


@given(build=st.sampled_from([ddim, dpmpp_2m]), steps=st.integers(1, 100), seed=st.integers(0, 2**31))
def test_a_point_mass_is_kept_on_its_noise_levels(build: Build, steps: int, seed: int) -> None:
    """If the data are one point p, state i is √ᾱ_i·p + √(1−ᾱ_i)·ε with the same ε for all i."""
    generator = torch.Generator().manual_seed(seed)
    point, epsilon = torch.rand(2, 1, 4, 2, generator=generator, dtype=torch.float64) * 2 - 1
    solver = build(ALPHAS_CUMPROD, steps)
    alpha = solver.alphas_cumprod[:, None, None]
    expected = alpha.sqrt() * point[:, None] + (1 - alpha).sqrt() * epsilon[:, None]
    states = sample_sequential(lambda states, steps: point[:, None], solver, expected[:, 0])
    torch.testing.assert_close(states, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("steps", [0, -1, 101])
@pytest.mark.parametrize("build", [ddim, dpmpp_2m])
def test_impossible_number_of_steps_is_refused(build: Build, steps: int) -> None:
    with pytest.raises(ValueError, match=rf"steps must be in 1 … 100 .* got {steps}"):
        build(ALPHAS_CUMPROD, steps)


def test_step_noise_goes_with_stochastic_solvers_only() -> None:
    noise = torch.zeros(1, 4, 2)
    with pytest.raises(ValueError, match="step_noise"):
        sample_sequential(lambda states, steps: states, ddpm(ALPHAS_CUMPROD, 4), noise)
    with pytest.raises(ValueError, match="step_noise"):
        sample_sequential(
            lambda s, steps: s, ddim(ALPHAS_CUMPROD, 4), noise, step_noise=torch.zeros(1, 4, 4, 2)
        )
