from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import Denoise, make_denoise
from policy.sampling import sample_picard, sample_sequential
from policy.sampling.newton import sample_newton
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import fresh_noise, repeated_noise
from policy.solvers.schedule import squared_cosine_alphas_cumprod
from policy.solvers.solver import ddim_solver, ddpm_solver, dpm_solver

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)


def smooth_denoise(states: Tensor, steps: slice) -> Tensor:
    """Nonlinear, but without the corners of a clipped prediction."""
    return torch.tanh(states + 0.5 * torch.sin(2 * states.roll(1, -2)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
@given(steps=st.integers(1, 20), seed=st.integers(0, 1000))
def test_an_affine_denoiser_takes_one_iteration(
    random_covariance: Callable[[int, int], Tensor],
    gaussian_denoise: Callable[..., Denoise],
    steps: int,
    seed: int,
) -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, steps)
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(2, size, 3, 2, generator=generator, dtype=torch.float64) for size in (1, steps))
    denoise = gaussian_denoise(solver, noise[0, 0], random_covariance(6, seed))
    states = sample_newton(denoise, solver, fresh_noise(x0[:, 0], noise), iterations=1)
    torch.testing.assert_close(states, sample_sequential(denoise, solver, x0[:, 0]), atol=1e-8, rtol=0)


def test_convergence_is_quadratic() -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, 20)
    x0 = torch.randn((4, 8, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = sample_sequential(smooth_denoise, solver, x0)
    recurrence = make_recurrence("semilinear", solver)

    def errors(iterate: Callable[[Tensor, int], Tensor]) -> list[float]:
        start = exact.clone()
        start[:, 1:] += 0.1
        return [float((iterate(start.clone(), k) - exact).abs().max()) for k in range(6)]

    newton = errors(lambda states, k: sample_newton(smooth_denoise, solver, states, k))
    picard = errors(lambda states, k: sample_picard(smooth_denoise, solver, states, recurrence, k).states)
    for before, after in pairwise(newton):
        assert after < 10 * before**2 + 1e-14, newton
    assert newton[4] < 1e-13
    assert picard[4] > 1e-4  # the starting point is not that easy


@pytest.mark.parametrize("grad", [False, True])
def test_each_iteration_makes_one_more_state_of_a_network_exact(
    policy: DiffusionPolicy, observations: Tensor, grad: bool
) -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, 6).to("cpu", torch.float32)
    denoise = make_denoise(policy.network, solver, observations.flatten(1) / 512)
    x0 = torch.randn((len(observations), 16, 2), generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(grad):
        exact = sample_sequential(denoise, solver, x0).detach()
        for k in (1, 2, 5, 6):
            states = sample_newton(denoise, solver, repeated_noise(x0, 6), k).detach()
            torch.testing.assert_close(states[:, : k + 1], exact[:, : k + 1], atol=1e-5, rtol=0)
        assert (sample_newton(denoise, solver, repeated_noise(x0, 6), 1) - exact).abs().max() > 1e-2


def test_iterations_can_be_made_one_by_one() -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, 8)
    x0 = torch.randn(2, 4, 2, dtype=torch.float64)
    at_once = sample_newton(smooth_denoise, solver, repeated_noise(x0, 8), 3)
    states = repeated_noise(x0, 8)
    for first in range(3):
        assert sample_newton(smooth_denoise, solver, states, 1, first) is states
    torch.testing.assert_close(states, at_once, atol=1e-12, rtol=0)


def test_solvers_that_are_no_deterministic_single_steps_are_refused() -> None:
    states = torch.zeros(1, 5, 4, 2)
    with pytest.raises(ValueError, match="needs a deterministic solver"):
        sample_newton(smooth_denoise, ddpm_solver(ALPHAS_CUMPROD, 4), states, 1)
    with pytest.raises(ValueError, match="multistep solver"):
        sample_newton(smooth_denoise, dpm_solver(ALPHAS_CUMPROD, 4), states, 1)
