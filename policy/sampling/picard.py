"""Picard iteration: all solver steps at once, repeated until the states are a fixed point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.recurrence import Recurrence
from policy.solvers import Solver

Converged: TypeAlias = Callable[[Tensor, int], int]
"""(mean square changes (B, S) of S states, the state before them) → number of these states, from the first, that are
final."""

Accelerate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(states, their corrections), both (B, S, H, A), called for each iteration in turn → better corrections."""


@dataclass(frozen=True)
class Iterate:
    """The states after one iteration.

    Attributes:
        states: (B, T+1, H, A), the noise first, the action sequence last.
        first: the last final state. The next iteration evaluates it and those after it.
        changes: (B, S) mean square change of each state that this iteration changed.
    """

    states: Tensor
    first: int
    changes: Tensor


def picard_iterates(
    denoisers: Sequence[Denoise],
    solver: Solver,
    states: Tensor,
    *,
    recurrences: Sequence[Recurrence],
    first: int = 0,
    window: int | None = None,
    converged: Converged | None = None,
    accelerate: Accelerate | None = None,
    refill: bool = False,
) -> Iterator[Iterate]:
    """Iterate x_{i+1} ← F_i(x_i) + A_i·(change of x_i) over all i at once (PCM, So et al. 2025, eq. 10 with A = I).

    Each iteration by the last denoiser makes one more state exact, whatever A is. So T of them give the sequential
    answer, where the generator ends. Final states are frozen and not evaluated again. The consumer may
    stop at any time.

    Args:
        denoisers: the data prediction x̂ of each iteration. The last one stays, and the iteration leads to its
            sequential answer. Those before it are a PCM that is being switched off (algorithm 2).
        solver: T deterministic steps.
        states: (B, T+1, H, A) of the start.
        recurrences: recurrence of each iteration, by which corrections spread. The last one stays.
        first: number of states after the noise that are exact already. They follow from one another.
        window: number of states that are evaluated at once; by default all.
        converged: test for states that are final besides the exact ones; by default none are.
        accelerate: improvement of the corrections by the last denoiser; needs all states at once.
        refill: give states that enter the window the values that follow if its last data prediction is held
            (ParaSolver), instead of those of the start.

    Yields:
        The states after each iteration.

    Raises:
        ValueError: for a stochastic solver.
    """
    solver.require_deterministic("Picard iteration")
    T = solver.steps
    # (B, T, H, A) the newest of each state
    unknown = torch.zeros_like(states[:, first + 1 :])
    predictions = torch.cat((predictions_behind(solver, states, first), unknown), 1)
    k = 0
    while first < T:
        is_last_denoiser = k >= len(denoisers) - 1
        denoise = denoisers[-1] if is_last_denoiser else denoisers[k]
        recurrence = recurrences[min(k, len(recurrences) - 1)]
        stop = min(T, first + (window or T))
        predicted = denoise(states[:, first:stop], slice(first, stop))
        predictions = torch.cat((predictions[:, :first], predicted, predictions[:, stop:]), 1)
        residuals = step_residuals(solver, states[:, : stop + 1], predictions[:, :stop], first=first)
        corrections = recurrence.corrections(residuals, first)
        if accelerate is not None and is_last_denoiser:
            corrections = accelerate(states[:, first + 1 : stop + 1], corrections)
        corrected = states[:, first + 1 : stop + 1] + corrections
        states = torch.cat((states[:, : first + 1], corrected, states[:, stop + 1 :]), 1)
        changes = corrections.square().mean((2, 3))
        if is_last_denoiser:
            first += 1 if converged is None else max(1, converged(changes, first))
            if refill:
                reached = min(T, first + (window or T))
                states, predictions = _hold_last_prediction(
                    solver, states, predictions, last=stop, reached=reached
                )
        k += 1
        yield Iterate(states, first, changes)


def picard_step(
    denoise: Denoise, solver: Solver, states: Tensor, *, recurrence: Recurrence, first: int = 0
) -> Tensor:
    """Φ, one iteration x_{i+1} ← F_i(x_i) + A_i·(change of x_i) over all i at once; differentiable.

    Args:
        denoise: the data prediction x̂.
        solver: T deterministic steps.
        states: (B, t+1, H, A), up to any state t.
        recurrence: recurrence by which corrections spread.
        first: the state to begin with, which stays as it is. The states up to it follow from one another, because a
            multistep solver uses the data predictions behind them.

    Returns:
        (B, t − first, H, A): the states first+1 … t after the iteration.
    """
    behind = predictions_behind(solver, states, first)
    predictions = denoise(states[:, first:-1], slice(first, states.shape[1] - 1))
    residuals = step_residuals(solver, states, torch.cat((behind, predictions), 1), first=first)
    return states[:, first + 1 :] + recurrence.corrections(residuals, first)


def step_residuals(solver: Solver, states: Tensor, predictions: Tensor, *, first: int) -> Tensor:
    """F_i(x_i) − x_{i+1} = r_i·x_i + Σ_{j≤i} W_{i,j}·x̂_j − x_{i+1} of the steps i = first … t−1.

    Args:
        solver: T steps.
        states: (B, t+1, H, A).
        predictions: (B, t, H, A) x̂ of the states 0 … t−1.
        first: 0 … t−1.

    Returns:
        (B, t − first, H, A).
    """
    steps = slice(first, states.shape[1] - 1)
    stepped = torch.einsum("ij,bjha->biha", solver.W[steps, : steps.stop], predictions)
    return solver.r[steps, None, None] * states[:, first:-1] + stepped - states[:, first + 1 :]


def predictions_behind(solver: Solver, states: Tensor, count: int) -> Tensor:
    """The data predictions (B, count, H, A) that the states 1 … count follow from.

    Solves x_{i+1} = r_i·x_i + Σ_{j≤i} W_{i,j}·x̂_j, i = 0 … count − 1, for x̂.

    Args:
        solver: T steps.
        states: (B, t+1, H, A), t ≥ count.
        count: number of states.
    """
    stepped = states[:, 1 : count + 1] - solver.r[:count, None, None] * states[:, :count]
    return torch.einsum("ij,bjha->biha", solver.W_inverse[:count, :count], stepped)


def within_tolerance(tolerance: float, solver: Solver) -> Converged:
    """Test of convergence: ‖x_t^{k+1} − x_t^k‖² / D ≤ δ²·σ_t² for a state t and all before it, in every sample.

    σ_t² is the variance of the ancestral step to it (ParaDiGMS, Shih et al. 2023, section 3.3). The last variance is 0;
    the smallest of the others replaces it. Each test makes a GPU wait for the host.

    Args:
        tolerance: δ.
        solver: T steps.
    """
    alpha, alpha_next = solver.alphas_cumprod[:-1], solver.alphas_cumprod[1:]
    variance = (1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next)
    if len(variance) > 1:
        variance = torch.cat((variance[:-1], variance[:-1].min()[None]))
    limits = tolerance**2 * variance

    def converged(changes: Tensor, first: int) -> int:
        return int((changes <= limits[first : first + changes.shape[1]]).cumprod(1).sum(1).min())

    return converged


def _hold_last_prediction(
    solver: Solver, states: Tensor, predictions: Tensor, *, last: int, reached: int
) -> tuple[Tensor, Tensor]:
    """States and predictions after steps from the state `last` to the state `reached` with the last x̂ held."""
    for i in range(last, reached):
        held = predictions[:, i - 1 : i]
        predictions = torch.cat((predictions[:, :i], held, predictions[:, i + 1 :]), 1)
        stepped = torch.einsum("ij,bjha->biha", solver.W[i : i + 1, : i + 1], predictions[:, : i + 1])
        stepped = solver.r[i] * states[:, i : i + 1] + stepped
        states = torch.cat((states[:, : i + 1], stepped, states[:, i + 2 :]), 1)
    return states, predictions
