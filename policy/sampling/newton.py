"""Newton's method: the recurrence with the true Jacobians of the solver's steps. A yardstick for cheaper ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import jvp

from policy.denoiser import Denoise
from policy.sampling.picard import Iterate, predictions_behind, step_residuals
from policy.solvers import Solver


def newton_iterates(denoise: Denoise, solver: Solver, states: Tensor, *, first: int = 0) -> Iterator[Iterate]:
    """Iterate x_{i+1} ← F_i(x_i) + J_i·(change of x_i), J_i = ∂F_i/∂x (PCM, So et al. 2025, eq. S7).

    The Jacobians are never built, only multiplied by the changes of the states before. So an iteration is as deep as
    sequential sampling: the method shows how few iterations are possible, not how little time. Each iteration makes one
    more state exact, which is then frozen.

    Args:
        denoise: the data prediction x̂, differentiable in forward mode.
        solver: T deterministic steps.
        states: (B, T+1, H, A) of the start; changed in place.
        first: number of states after the noise that are exact already.

    Yields:
        The states after each iteration.

    Raises:
        ValueError: for a stochastic solver.
    """
    solver.require_deterministic("Newton's method")
    T, r, W = solver.steps, solver.r, solver.W
    predictions = torch.zeros_like(states[:, 1:])
    predictions[:, :first] = predictions_behind(solver, states, first)
    for start in range(first, T):
        changes = torch.zeros_like(states)  # (B, T+1, H, A) of the states
        prediction_changes = torch.zeros_like(predictions)
        for i in range(start, T):
            predictions[:, i : i + 1], prediction_changes[:, i : i + 1] = jvp(
                lambda x, i=i: denoise(x, slice(i, i + 1)), (states[:, i : i + 1],), (changes[:, i : i + 1],)
            )[:2]
            residual = step_residuals(solver, states[:, : i + 2], predictions[:, : i + 1], first=i)[:, 0]
            spread = torch.einsum("j,bjha->bha", W[i, : i + 1], prediction_changes[:, : i + 1])
            changes[:, i + 1] = residual + r[i] * changes[:, i] + spread
        states += changes
        yield Iterate(states, start + 1, changes[:, start + 1 :].square().mean((2, 3)))
