"""Starts of parallel samplers: the states (B, T+1, H, A) before the first iteration. State 0 is the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.recurrence import gaussian_gain
from policy.solvers import Solver

STARTS = ("fresh", "repeated", "held", "gaussian")

Draw: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""(B, …) → standard normal noise of that shape."""

Start: TypeAlias = Callable[[Denoise, Tensor, Draw], Tensor]
"""(data prediction, noise (B, H, A), source of further noise) → initial states (B, T+1, H, A)."""


def exact_states(start: str, calls: int = 1) -> int:
    """Sequential network calls of a start. As many states after the noise are exact.

    Args:
        start: one of `STARTS`.
        calls: M of ``held``.
    """
    return {"held": calls, "gaussian": 1}.get(start, 0)


def make_start(start: str, solver: Solver, *, covariance: Tensor | None = None, calls: int = 1) -> Start:
    """The start of that name.

    Args:
        start: one of `STARTS`.
        solver: T steps.
        covariance: (D, D) of the flattened action sequences, for ``gaussian``.
        calls: M of ``held``, at most T.

    Raises:
        ValueError: for an unknown name, or ``gaussian`` without a covariance.
    """
    if start == "fresh":
        return lambda denoise, noise, draw: fresh_noise(
            noise, draw((noise.shape[0], solver.steps, *noise.shape[1:]))
        )
    if start == "repeated":
        return lambda denoise, noise, draw: repeated_noise(noise, solver.steps)
    if start == "held":
        return lambda denoise, noise, draw: held_prediction(denoise, solver, noise, calls=calls)
    if start == "gaussian":
        if covariance is None:
            raise ValueError("the start 'gaussian' needs the covariance of the policy's actions")
        gaussian = gaussian_start(solver, covariance)
        return lambda denoise, noise, draw: gaussian(denoise, noise)
    raise ValueError(f"unknown start {start!r}, must be one of {', '.join(STARTS)}")


def fresh_noise(noise: Tensor, further: Tensor) -> Tensor:
    """Independent noise in each later state (ParaDiGMS, Shih et al. 2023, algorithm 1).

    Args:
        noise: (B, H, A).
        further: (B, T, H, A).
    """
    return torch.cat((noise[:, None], further), dim=1)


def repeated_noise(noise: Tensor, steps: int) -> Tensor:
    """The noise (B, H, A) in all T+1 states."""
    return noise[:, None].repeat(1, steps + 1, 1, 1)


def held_prediction(denoise: Denoise, solver: Solver, noise: Tensor, *, calls: int) -> Tensor:
    """States by M sequential steps; later steps hold the last data prediction (ParaSolver, Lu et al. 2025).

    The states 1 … M are exact.

    Args:
        denoise: the data prediction.
        solver: T steps.
        noise: (B, H, A).
        calls: M, 1 … T.
    """
    later = solver.a[:, None, None] * noise[:, None]
    states = []
    for i in range(calls):
        last = i == calls - 1
        # Weight of x̂_i in each later state. The last one is held: it stands for all later x̂ too.
        weights = solver.C[i + 1 :, i:].sum(1) if last else solver.C[i + 1 :, i]
        state, later = later[:, :1], later[:, 1:]
        states.append(state)
        later = later + weights[:, None, None] * denoise(state, slice(i, i + 1))
    return torch.cat((*states, later), 1)


def states_of_guess(solver: Solver, noise: Tensor, actions: Tensor) -> Tensor:
    """States (B, T+1, H, A) from the noise to a guess of the actions, both (B, H, A), with the guess as every x̂."""
    weights = solver.C.sum(1)
    return solver.a[:, None, None] * noise[:, None] + weights[:, None, None] * actions[:, None]


def gaussian_start(solver: Solver, covariance: Tensor) -> Callable[[Denoise, Tensor], Tensor]:
    """Path of the probability-flow ODE if the actions were Gaussian, at the price of one network call.

    Given the observation, let the actions be N(μ, Σ). The data prediction at the first step is then
    x̂_0 = μ + S_0·(x_0 − √ᾱ_0·μ), which gives μ. Along each principal axis of Σ the ODE has the solution
    x_t = √ᾱ_t·μ + √((ᾱ_t·s + 1 − ᾱ_t) / (ᾱ_0·s + 1 − ᾱ_0))·(x_0 − √ᾱ_0·μ). It is linear in x_0 and x̂_0.

    The first solver step needs no other network call, so state 1 is exact.

    Args:
        solver: T steps.
        covariance: (D, D) Σ of the flattened action sequences.

    Returns:
        (data prediction, noise (B, H, A)) → states (B, T+1, H, A).
    """
    variances, basis = torch.linalg.eigh(covariance.double())
    variances = variances.clamp(min=0)
    alpha = solver.alphas_cumprod.double()
    signal = alpha.sqrt()
    gain = gaussian_gain(alpha[:1], variances[:, None])[:, 0]  # (D,)
    state_variance = alpha[:, None] * variances + (1 - alpha[:, None])  # (T+1, D)
    spread = (state_variance / state_variance[0]).sqrt()
    of_mean = signal[:, None] - spread * signal[0]  # weights of μ, of x̂_0 in it, and of x_0, each (T+1, D)
    of_prediction = of_mean / (1 - signal[0] * gain)
    of_noise = spread - gain * of_prediction
    maps = torch.stack((of_noise, of_prediction))[..., None, :] * basis @ basis.T  # (2, T+1, D, D)
    identity = torch.eye(len(variances), dtype=maps.dtype, device=maps.device)
    maps[:, 0] = torch.stack((identity, 0 * identity))
    maps[:, 1] = torch.stack((solver.a[1] * identity, solver.C[1, 0] * identity))
    joined = maps.permute(0, 3, 1, 2).reshape(2 * len(variances), -1).to(solver.a)  # (2·D, (T+1)·D)

    def start(denoise: Denoise, noise: Tensor) -> Tensor:
        prediction = denoise(noise[:, None], slice(0, 1))[:, 0]
        known = torch.cat((noise.flatten(1), prediction.flatten(1)), dim=1)
        return (known @ joined).unflatten(1, (-1, *noise.shape[1:]))

    return start
