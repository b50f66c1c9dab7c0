from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from policy import PolicyConfig
from policy.denoiser import Denoise, make_denoise
from policy.sampling import picard_iterates
from policy.solvers import Solver
from training.data.task_file import load_task

PUSHT = load_task("pusht").task
TINY = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)


@pytest.fixture
def network_denoise() -> Callable[[Solver, int, int], Denoise]:
    def denoise(solver: Solver, batch: int, seed: int) -> Denoise:
        """A random network's data prediction of (16, 2) actions: nonlinear and clipped, as a real policy's."""
        torch.manual_seed(seed)
        network = TINY.build_network(PUSHT).to(solver.a.dtype).requires_grad_(False)
        return make_denoise(network, solver, torch.randn(batch, TINY.cond_dim(PUSHT), dtype=solver.a.dtype))

    return denoise


def _gaussian_denoise(solver: Solver, mean: Tensor, covariance: Tensor) -> Denoise:
    """Optimal data prediction for actions that are N(mean (H, A), covariance (D, D)): linear in the state."""
    alpha = solver.alphas_cumprod[:-1]
    identity = torch.eye(len(covariance), dtype=covariance.dtype)

    def denoise(states: Tensor, steps: slice) -> Tensor:
        predictions = []
        for x, a in zip(states.unbind(1), alpha[steps], strict=True):
            gain = a.sqrt() * covariance @ torch.linalg.inv(a * covariance + (1 - a) * identity)
            offset = x.flatten(1) - a.sqrt() * mean.flatten()
            predictions.append((mean.flatten() + offset @ gain.T).view_as(x))
        return torch.stack(predictions, 1)

    return denoise


def _iterated(
    denoise: Denoise, solver: Solver, states: Tensor, *, iterations: int | None = None, **options: Any
) -> list[Tensor]:
    """The states after each of the first iterations; all iterations by default."""
    options["recurrences"] = [options.pop("recurrence")]
    iterates = picard_iterates([denoise], solver, states, **options)
    return [iterate.states.clone() for iterate in islice(iterates, iterations)]


@pytest.fixture(scope="session")
def iterated() -> Callable[..., list[Tensor]]:
    return _iterated


@pytest.fixture
def gaussian_denoise() -> Callable[[Solver, Tensor, Tensor], Denoise]:
    return _gaussian_denoise


@pytest.fixture
def random_covariance() -> Callable[[int, int], Tensor]:
    def draw(size: int, seed: int) -> Tensor:
        """(size, size) with variances between about 1e-3 and 1, in random directions."""
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn((size, size), generator=generator, dtype=torch.float64)).Q
        variances = 10 ** (-3 * torch.rand(size, generator=generator, dtype=torch.float64))
        return basis * variances @ basis.T

    return draw
