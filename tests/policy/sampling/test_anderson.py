from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from policy import ParallelConfig, SamplerConfig
from policy.denoiser import Denoise
from policy.sampling import sample_sequential
from policy.sampling.anderson import accelerated_corrections, anderson
from policy.sampling.picard import Accelerate
from policy.sampling.recurrence import JACOBIANS, make_recurrence
from policy.sampling.start import repeated_noise
from policy.solvers import Solver, ddim
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
MakeDenoise = Callable[[Solver, int, int], Denoise]
Iterated = Callable[..., list[Tensor]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def iterates_of_a_triangular_map(steps: int, memory: int) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Iterates of x ← M·x + b with a block triangular M, for 2 samples of (steps, 3, 1), and the fixed point."""
    size = steps * 3
    M = (noise(size, size, seed=1) * 0.3).tril() * torch.ones(steps, steps).tril().repeat_interleave(
        3, 0
    ).repeat_interleave(3, 1)
    b = noise(2, size, seed=2)
    x = noise(2, size, seed=3)
    iterates = []
    for _ in range(memory + 1):
        iterates.append((x.view(2, steps, 3, 1), (x @ M.T + b - x).view(2, steps, 3, 1)))
        x = x @ M.T + b
    fixed = torch.linalg.solve(torch.eye(size, dtype=x.dtype) - M, b.T).T
    return iterates, fixed.view(2, steps, 3, 1)


def test_solves_a_linear_map_once_the_memory_spans_its_states() -> None:
    """GMRES in other clothes (Walker & Ni 2011): as many differences as dimensions leave no residual."""
    iterates, fixed = iterates_of_a_triangular_map(steps=2, memory=6)
    states, corrections = iterates[-1]
    plain = (states + corrections - fixed)[:, 1].abs().max()
    accelerated = (states + accelerated_corrections(iterates) - fixed)[:, 1].abs().max()
    assert accelerated < 0.05 * plain  # not 0, by the ridge


def test_a_state_does_not_look_at_later_ones() -> None:
    iterates, _ = iterates_of_a_triangular_map(steps=5, memory=2)
    moved = accelerated_corrections(iterates)
    for t in range(1, 5):
        prefix = [(states[:, :t], corrections[:, :t]) for states, corrections in iterates]
        torch.testing.assert_close(accelerated_corrections(prefix), moved[:, :t], atol=1e-12, rtol=0)
    assert torch.equal(moved[:, 0], iterates[-1][1][:, 0])


def test_iterates_that_have_stopped_moving_move_no_further() -> None:
    states = noise(2, 4, 3, 1)
    still = (states, torch.zeros_like(states))
    assert torch.equal(accelerated_corrections([still, still, still]), torch.zeros_like(states))


@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_exact_states_stay_exact(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    iterated: Iterated,
    jacobian: str,
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 10)
    denoise = network_denoise(solver, 2, 0)
    recurrence = make_recurrence(jacobian, solver, random_covariance(32, 0))
    exact = sample_sequential(denoise, solver, noise(2, 16, 2))
    states = repeated_noise(noise(2, 16, 2), 10)
    iterates = iterated(denoise, solver, states, recurrence=recurrence, accelerate=anderson(3))
    assert len(iterates) == 10
    for k, found in enumerate(iterates, 1):
        torch.testing.assert_close(found[:, : k + 1], exact[:, : k + 1], atol=1e-9, rtol=0)


def test_accelerates_the_published_picard_iteration(network_denoise: MakeDenoise, iterated: Iterated) -> None:
    """Drift, from the noise repeated, as in ParaDiGMS."""
    solver = ddim(ALPHAS_CUMPROD, 25)
    denoise = network_denoise(solver, 4, 0)
    recurrence = make_recurrence("drift", solver)
    exact = sample_sequential(denoise, solver, noise(4, 16, 2))[:, -1]

    def error(accelerate: Accelerate | None) -> float:
        states = repeated_noise(noise(4, 16, 2), 25)
        options = {"recurrence": recurrence, "iterations": 8, "accelerate": accelerate}
        return float((iterated(denoise, solver, states, **options)[-1][:, -1] - exact).abs().max())

    assert error(anderson(3)) < 0.5 * error(None)


def test_memory_needs_all_steps_at_once() -> None:
    with pytest.raises(
        ValueError,
        match=r"sampler\.parallel\.memory needs all steps at once: sampler\.parallel\.window must be 0",
    ):
        SamplerConfig("picard", "ddim", 10, parallel=ParallelConfig(window=5, memory=2))
