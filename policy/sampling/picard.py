"""Picard iteration: all solver steps at once, again and again, until the trajectory is a fixed point."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.anderson import Iterate, accelerated_corrections
from policy.sampling.deadline import Deadline
from policy.sampling.recurrence import Recurrence
from policy.sampling.start import held_prediction
from policy.solvers.solver import Solver


@dataclass(frozen=True)
class PicardResult:
    """A trajectory and how it was reached.

    Attributes:
        states: (B, T+1, H, A), the noise first, the action sequence last.
        iterations: parallel network evaluations that it took.
        residual: (B,) root mean square of the actions' change in the last iteration; with a window, of the last state
            in it.
        cut: whether a deadline ended it.
    """

    states: Tensor
    iterations: int
    residual: Tensor
    cut: bool = False


def picard_step(
    denoise: Denoise, solver: Solver, recurrence: Recurrence, states: Tensor, first: int = 0
) -> Tensor:
    """Φ, one iteration: x_{i+1} ← F_i(x_i) + A_i·(change of x_i) over all i at once; differentiable.

    Args:
        denoise: the data prediction x̂.
        solver: T deterministic steps.
        recurrence: how corrections spread.
        states: (B, t+1, H, A) the trajectory up to any state t.
        first: the state to start from, which stays as it is. Those up to it must follow from one another: a multistep
            solver goes on from the data prediction before it, which they tell.

    Returns:
        (B, t − first, H, A) the states first+1 … t of the next trajectory.
    """
    predictions = denoise(states[:, first:-1], slice(first, states.shape[1] - 1))
    before = prediction_before(solver, states, first)
    return states[:, first + 1 :] + _corrections(solver, recurrence, states, predictions, before, first)


def _corrections(
    solver: Solver,
    recurrence: Recurrence,
    states: Tensor,
    predictions: Tensor,
    before: Tensor | None,
    first: int,
) -> Tensor:
    """Φ(x) − x of the states first+1 … t.

    Args:
        solver, recurrence: of the T steps.
        states: (B, t+1, H, A).
        predictions: (B, t − first, H, A) x̂ of the states first … t−1.
        before: (B, 1, H, A) x̂ of the state before them, for a multistep solver.
        first: 0 … t−1.
    """
    steps = slice(first, states.shape[1] - 1)
    r, c = solver.r[steps, None, None], solver.c[steps, None, None]
    residuals = r * states[:, first:-1] + c * predictions - states[:, first + 1 :]
    if solver.b is not None and before is not None:
        residuals = residuals + solver.b[steps, None, None] * torch.cat((before, predictions[:, :-1]), 1)
    return recurrence.corrections(residuals, first)


def prediction_before(solver: Solver, states: Tensor, first: int) -> Tensor | None:
    """The data prediction (B, 1, H, A) of the state before `first` that the states up to it have followed from.

    Solves x_t = a_t·x_0 + Σ_{i<t} C_{t,i}·x̂_i, t = 1 … first, for x̂.

    Args:
        solver: T steps.
        states: (B, t+1, H, A).
        first: 0 … t; before 0 there is none, and what stands for it is 0.

    Returns:
        None for a solver of single steps, which needs none.
    """
    if solver.b is None:
        return None
    if first == 0:
        return torch.zeros_like(states[:, :1])
    known = states[:, 1 : first + 1] - solver.a[1 : first + 1, None, None] * states[:, :1]
    C = solver.C[1 : first + 1, :first]
    predictions = torch.linalg.solve_triangular(C, known.flatten(2), upper=False)
    return predictions[:, -1:].view_as(states[:, :1])


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
    memory: int = 0,
    renew: bool = False,
    deadline: Deadline | None = None,
    first_recurrence: Recurrence | None = None,
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
        first: steps whose result in `states` is exact already, as for `picard_step`.
        switching: the data predictions of the first iterations, before those by `denoise`.
        memory: earlier iterates, all of them by `denoise`, for `accelerated_corrections`; needs all steps at once.
        renew: begin the states that the window reaches with its last data prediction, held (ParaSolver), instead of
            the initial trajectory.
        deadline: ends the iteration when the next one would be late, but not before the first.
        first_recurrence: how corrections spread in the first iteration, if not as later.

    Raises:
        ValueError: for a stochastic solver.
    """
    if solver.N is not None:
        raise ValueError("Picard iteration needs a deterministic solver")
    limits = tolerance**2 * _step_variance(solver)
    residual = states.new_zeros(len(states))
    before = prediction_before(solver, states, first)
    iterates: deque[Iterate] = deque(maxlen=memory + 1)
    done = 0
    while done < iterations and first < solver.steps:
        stop = min(solver.steps, first + (window or solver.steps))
        evaluations = len(states) * (stop - first)
        if deadline is not None:
            if done > 0 and not deadline.allows(evaluations):
                return PicardResult(states, done, residual, cut=True)
            deadline.begin()
        model = switching[done] if done < len(switching) else denoise
        predictions = model(states[:, first:stop], slice(first, stop))
        spread = first_recurrence if done == 0 and first_recurrence is not None else recurrence
        corrections = _corrections(solver, spread, states[:, : stop + 1], predictions, before, first)
        if memory > 0 and done >= len(switching):
            iterates.append((states[:, first + 1 :].clone(), corrections))
            corrections = accelerated_corrections(iterates)
        states[:, first + 1 : stop + 1] += corrections
        changes = corrections.square().mean((2, 3))  # (B, S)
        residual = changes[:, -1].sqrt()
        done += 1
        if done > len(switching):
            converged = 1
            if tolerance > 0:
                converged = max(1, int((changes <= limits[first:stop]).cumprod(1).sum(1).min()))
            first += converged
            if before is not None:
                # As it was computed: states that have converged, and are not exact, would tell it less precisely.
                before = predictions[:, converged - 1 : converged]
            if renew:
                reached = min(solver.steps, first + (window or solver.steps))
                states[:, stop + 1 : reached + 1] = held_prediction(
                    solver, states[:, stop], predictions[:, -1], stop, reached
                )
        if deadline is not None:
            deadline.end(evaluations)
    return PicardResult(states, done, residual)


def _step_variance(solver: Solver) -> Tensor:
    """(T,) variance that DDPM would add in each step; the last one, 0, is replaced by the smallest of the others."""
    alpha, alpha_next = solver.alphas_cumprod[:-1], solver.alphas_cumprod[1:]
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    if len(variance) > 1:
        variance = torch.cat((variance[:-1], variance[:-1].min()[None]))
    return variance
