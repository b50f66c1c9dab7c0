from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling import sample_sequential
from policy.sampling.start import gaussian_start
from policy.solvers import Solver, ddim
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)


def test_the_gaussian_start_solves_the_gaussians_ode(
    random_covariance: Callable[[int, int], Tensor],
    gaussian_denoise: Callable[[Solver, Tensor, Tensor], Denoise],
) -> None:
    """DDIM with a step per training timestep is Euler's method for the same ODE: close, not equal."""
    solver = ddim(ALPHAS_CUMPROD, 100)
    covariance, mean = random_covariance(6, 1), torch.rand(3, 2, dtype=torch.float64) - 0.5
    denoise = gaussian_denoise(solver, mean, covariance)
    noise = torch.randn(2, 3, 2, dtype=torch.float64)
    states = gaussian_start(solver, covariance)(denoise, noise)
    sequential = sample_sequential(denoise, solver, noise)
    torch.testing.assert_close(states[:, 1], sequential[:, 1], atol=1e-12, rtol=0)
    assert (states - sequential).abs().max() < 0.1
    finer = [ddim(squared_cosine_alphas_cumprod(n), n) for n in (100, 400)]
    errors = []
    for solver in finer:
        denoise = gaussian_denoise(solver, mean, covariance)
        difference = gaussian_start(solver, covariance)(denoise, noise) - sample_sequential(
            denoise, solver, noise
        )
        errors.append(difference[:, -1].abs().max())
    assert errors[1] < 0.5 * errors[0]  # Euler's error falls with the step
