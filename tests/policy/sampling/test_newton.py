from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import Denoise, make_denoise
from policy.sampling import sample_sequential
from policy.sampling.newton import newton_iterates
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import fresh_noise, repeated_noise
from policy.solvers import Solver, ddim, ddpm, dpmpp_2m
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)


def smooth_denoise(states: Tensor, steps: slice) -> Tensor:
    """Nonlinear, but without the corners of a clipped prediction."""
    return torch.tanh(states + 0.5 * torch.sin(2 * states.roll(1, -2)))


def newton(denoise: Denoise, solver: Solver, states: Tensor, iterations: int) -> Tensor:
    *_, last = islice(newton_iterates(denoise, solver, states), iterations)
    return last.states


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
@given(steps=st.integers(1, 20), seed=st.integers(0, 1000), build=st.sampled_from([ddim, dpmpp_2m]))
def test_an_affine_denoiser_takes_one_iteration(
    random_covariance: Callable[[int, int], Tensor],
    gaussian_denoise: Callable[..., Denoise],
    steps: int,
    seed: int,
    build: Callable[[Tensor, int], Solver],
) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    generator = torch.Generator().manual_seed(seed)
    noise, further = (
        torch.randn(2, size, 3, 2, generator=generator, dtype=torch.float64) for size in (1, steps)
    )
    denoise = gaussian_denoise(solver, further[0, 0], random_covariance(6, seed))
    states = newton(denoise, solver, fresh_noise(noise[:, 0], further), 1)
    torch.testing.assert_close(states, sample_sequential(denoise, solver, noise[:, 0]), atol=1e-8, rtol=0)


@pytest.mark.parametrize("build", [ddim, dpmpp_2m])
def test_convergence_is_quadratic(
    iterated: Callable[..., list[Tensor]], build: Callable[[Tensor, int], Solver]
) -> None:
    solver = build(ALPHAS_CUMPROD, 20)
    noise = torch.randn((4, 8, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = sample_sequential(smooth_denoise, solver, noise)
    recurrence = make_recurrence("semilinear", solver)

    start = exact.clone()
    start[:, 1:] += 0.1
    iterates = (each.states for each in islice(newton_iterates(smooth_denoise, solver, start.clone()), 5))
    errors = [float((states - exact).abs().max()) for states in (start, *map(torch.clone, iterates))]
    for before, after in pairwise(errors):
        assert after < 10 * before**2 + 1e-14, errors
    assert errors[4] < 1e-12
    picard = iterated(smooth_denoise, solver, start, recurrence=recurrence, iterations=4)[-1]
    assert (picard - exact).abs().max() > 1e-4  # the starting point is not that easy


@pytest.mark.parametrize("grad", [False, True])
def test_each_iteration_makes_one_more_state_of_a_network_exact(
    policy: DiffusionPolicy, observations: Tensor, grad: bool
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 6).to("cpu", torch.float32)
    denoise = make_denoise(policy.network, solver, observations.flatten(1) / 512)
    noise = torch.randn((len(observations), 16, 2), generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(grad):
        exact = sample_sequential(denoise, solver, noise).detach()
        for k in (1, 2, 5, 6):
            states = newton(denoise, solver, repeated_noise(noise, 6), k).detach()
            torch.testing.assert_close(states[:, : k + 1], exact[:, : k + 1], atol=1e-5, rtol=0)
        assert (newton(denoise, solver, repeated_noise(noise, 6), 1) - exact).abs().max() > 1e-2


def test_iterations_can_be_made_one_by_one() -> None:
    solver = ddim(ALPHAS_CUMPROD, 8)
    noise = torch.randn(2, 4, 2, dtype=torch.float64)
    at_once = newton(smooth_denoise, solver, repeated_noise(noise, 8), 3)
    states = repeated_noise(noise, 8)
    for first in range(3):
        assert next(newton_iterates(smooth_denoise, solver, states, first=first)).states is states
    torch.testing.assert_close(states, at_once, atol=1e-12, rtol=0)


def test_a_stochastic_solver_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a deterministic solver"):
        newton(smooth_denoise, ddpm(ALPHAS_CUMPROD, 4), torch.zeros(1, 5, 4, 2), 1)
