"""Multistep solvers against their loops in diffusers, at the same timesteps and noise levels."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from policy.sampling import sample_sequential
from policy.solvers import SOLVERS, SPACINGS, BuildSolver, Solver, Spacing, dpmpp_3m
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
# Diffusers' loop has half of the second derivative.
PUBLISHED: dict[str, BuildSolver] = {**SOLVERS, "dpmpp_3m": partial(dpmpp_3m, second_derivative=1.0)}
SCHEDULERS: dict[str, Any] = {
    "dpmpp_2m": lambda **shared: DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **shared
    ),
    "dpmpp_3m": lambda **shared: DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=3, final_sigmas_type="zero", **shared
    ),
    "deis": lambda **shared: DEISMultistepScheduler(solver_order=3, **shared),
    "unipc": lambda **shared: UniPCMultistepScheduler(
        solver_order=2, solver_type="bh2", final_sigmas_type="zero", **shared
    ),
}


def predict(x: Tensor, i: int) -> Tensor:
    """A smooth nonlinear data prediction that changes from step to step."""
    return torch.tanh(x + 0.3 * torch.sin(3 * x.roll(1, -2) + i))


def scheduler_for(name: str, solver: Solver) -> Any:
    scheduler = SCHEDULERS[name](
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type="sample"
    )
    scheduler.set_timesteps(solver.steps)
    scheduler.timesteps = solver.timesteps
    scheduler.sigmas = ((1 - solver.alphas_cumprod) / solver.alphas_cumprod).sqrt()
    scheduler.num_inference_steps = solver.steps
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 12])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_state_is_diffusers(name: str, steps: int) -> None:
    check_against_diffusers(name, PUBLISHED[name](ALPHAS_CUMPROD, steps))


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing", "karras"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_state_is_diffusers_at_other_timesteps(name: str, spacing: str) -> None:
    for steps in (2, 3, 6):
        check_against_diffusers(name, PUBLISHED[name](ALPHAS_CUMPROD, steps, spacing=SPACINGS[spacing]))


@pytest.mark.parametrize("spacing", SPACINGS.values())
def test_few_steps_leave_no_room_for_their_orders(spacing: Spacing) -> None:
    """First and last steps are of first order, so with two steps all are one solver; 3M needs a fourth step."""
    two = [SOLVERS[name](ALPHAS_CUMPROD, 2, spacing=spacing) for name in SCHEDULERS]
    for solver in two[1:]:
        torch.testing.assert_close(solver.C, two[0].C, atol=1e-12, rtol=0)
    second, third = (SOLVERS[name](ALPHAS_CUMPROD, 3, spacing=spacing) for name in ("dpmpp_2m", "dpmpp_3m"))
    torch.testing.assert_close(second.C, third.C, atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 16, 50])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_timesteps_are_diffusers(spacing: str, steps: int) -> None:
    expected = SCHEDULERS["dpmpp_2m"](
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", timestep_spacing=spacing
    )
    expected.set_timesteps(steps)
    assert SPACINGS[spacing](ALPHAS_CUMPROD, steps).tolist() == expected.timesteps.tolist()


def test_karras_timesteps_are_those_nearest_to_its_noise_levels() -> None:
    """Against diffusers' noise levels between the same two, where they are farther apart than the timesteps."""
    timesteps = SPACINGS["karras"](ALPHAS_CUMPROD, 5)
    log_sigma = -torch.special.logit(ALPHAS_CUMPROD) / 2
    scheduler = SCHEDULERS["dpmpp_2m"](num_train_timesteps=100, use_karras_sigmas=True)
    ends = log_sigma[timesteps[[0, -1]]].exp()
    expected = torch.from_numpy(scheduler._convert_to_karras(ends.numpy(), num_inference_steps=5)).log()
    off = (log_sigma[timesteps] - expected).abs()
    assert (off <= (log_sigma - expected[:, None]).abs().amin(1) + 1e-9).all()


def check_against_diffusers(name: str, solver: Solver) -> None:
    steps = solver.steps
    scheduler = scheduler_for(name, solver)
    noise = torch.randn((2, 16, 2), generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
    expected = [noise]
    for i, timestep in enumerate(scheduler.timesteps):
        expected.append(scheduler.step(predict(expected[-1], i), timestep, expected[-1]).prev_sample)
    # At σ = 0, the last state, DEIS of diffusers multiplies 0 with infinity.
    compared = steps if name == "deis" else steps + 1
    states = sample_sequential(lambda x, s: predict(x, s.start), solver, noise)
    torch.testing.assert_close(
        states[:, :compared], torch.stack(expected[:compared], 1).double(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(states[:, -1], predict(states[:, -2], steps - 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "order"), [("dpmpp_2m", 2), ("dpmpp_3m", 3), ("deis", 3), ("unipc", 3)])
def test_halving_the_steps_divides_the_error_by_two_to_the_order(name: str, order: int) -> None:
    """Against the exact states of one Gaussian. UniPC's corrector adds an order to the predictor's two."""

    def relative_error(build: BuildSolver, steps: int) -> float:
        # So fine that rounding to it plays no role.
        solver = build(squared_cosine_alphas_cumprod(40000), steps)
        alpha, variance = solver.alphas_cumprod, 0.05
        spread = (alpha * variance + 1 - alpha).sqrt()
        gain = (alpha.sqrt() * variance / spread**2)[:-1, None, None]
        states = sample_sequential(lambda x, i: gain[i] * x, solver, spread[:1, None, None])
        return float(
            (states[0, -3, 0, 0] / spread[-3] - 1).abs()
        )  # before the last two steps, of lower order

    build = SOLVERS[name]
    assert relative_error(build, 40) / relative_error(build, 80) > 0.8 * 2**order
    if name == "dpmpp_3m":
        published = PUBLISHED[name]
        assert relative_error(published, 40) / relative_error(published, 80) < 4.5
