"""Picard iteration: all solver steps at once, again and again, until the trajectory is a fixed point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.recurrence import Recurrence
from policy.solver import Solver


@dataclass(frozen=True)
class PicardResult:
    """A trajectory and how it was reached.

    Attributes:
        states: (B, T+1, H, A), the noise first, the action sequence last.
        iterations: parallel network evaluations that it took.
        residual: (B,) root mean square of the last state's change in the last iteration.
    """

    states: Tensor
    iterations: int
    residual: Tensor


def picard_step(
    denoise: Denoise, solver: Solver, recurrence: Recurrence, states: Tensor, first: int = 0
) -> Tensor:
    """Φ, one iteration: x_{i+1} ← F_i(x_i) + A_i·(change of x_i) over all i at once; differentiable.

    Args:
        denoise: the data prediction x̂.
        solver: T deterministic steps.
        recurrence: how corrections spread.
        states: (B, t+1, H, A) the trajectory up to any state t.
        first: the state to start from, which stays as it is.

    Returns:
        (B, t − first, H, A) the states first+1 … t of the next trajectory.
    """
    steps = slice(first, states.shape[1] - 1)
    r, c = solver.r[steps, None, None], solver.c[steps, None, None]
    residuals = r * states[:, first:-1] + c * denoise(states[:, first:-1], steps) - states[:, first + 1 :]
    return states[:, first + 1 :] + recurrence.corrections(residuals, first)


def sample_picard(
    denoise: Denoise,
    solver: Solver,
    states: Tensor,
    recurrence: Recurrence,
    iterations: int,
    tolerance: float = 0.0,
    window: int | None = None,
    first: int = 0,
    switching: Sequence[Denoise] = (),
) -> PicardResult:
    """Iterate x_{i+1} ← F_i(x_i) + A_i·(change of x_i) over all i at once (PCM, So et al. 2025, eq. 10 with A = I).

    Each iteration makes one more state exact, whatever A is, so T iterations give the sequential answer.
    States that are exact, or have converged, are frozen and not evaluated again. With a PCM (algorithm 2) that
    begins when its switching off has ended.

    Args:
        denoise: the data prediction x̂.
        solver: T deterministic steps.
        states: (B, T+1, H, A) initial trajectory; changed in place.
        recurrence: how corrections spread.
        iterations: at most so many.
        tolerance: δ. A state t of a sample has converged if it and all before it changed by
            ‖x_t^{k+1} − x_t^k‖² / D ≤ δ²·σ_t², σ_t² the variance of the ancestral step to it (ParaDiGMS, Shih et al.
            2023, section 3.3). 0 looks at nothing, which keeps a GPU from waiting for the host.
        window: steps that are evaluated at once, by default all.
        first: steps whose result in `states` is exact already.
        switching: the data predictions of the first iterations, before those by `denoise`.

    Raises:
        ValueError: for a stochastic solver.
    """
    if solver.N is not None:
        raise ValueError("Picard iteration needs a deterministic solver")
    limits = tolerance**2 * _step_variance(solver)
    residual = states.new_zeros(len(states))
    done = 0
    while done < iterations and first < solver.steps:
        stop = min(solver.steps, first + (window or solver.steps))
        model = switching[done] if done < len(switching) else denoise
        replaced = picard_step(model, solver, recurrence, states[:, : stop + 1], first)
        changes = (replaced - states[:, first + 1 : stop + 1]).square().mean((2, 3))  # (B, S)
        states[:, first + 1 : stop + 1] = replaced
        residual = changes[:, -1].sqrt()
        done += 1
        if done <= len(switching):
            continue
        if tolerance > 0:
            converged = (changes <= limits[first:stop]).cumprod(1).sum(1).min()
            first += max(1, int(converged))
        else:
            first += 1
    return PicardResult(states, done, residual)


def _step_variance(solver: Solver) -> Tensor:
    """(T,) variance that DDPM would add in each step; the last one, 0, is replaced by the smallest of the others."""
    alpha, alpha_next = solver.alphas_cumprod[:-1], solver.alphas_cumprod[1:]
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    if len(variance) > 1:
        variance = torch.cat((variance[:-1], variance[:-1].min()[None]))
    return variance
