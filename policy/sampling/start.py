"""Initial trajectories for parallel samplers: (B, T+1, H, A) states that begin with the noise x₀."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.recurrence import gaussian_gain
from policy.solvers.solver import Solver

INITIALISATIONS = ("fresh", "repeated", "parasolver", "gaussian")

Draw: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""(B, …) → standard normal noise of that shape."""

Start: TypeAlias = Callable[[Denoise, Tensor, Draw], Tensor]
"""(data prediction, noise x₀ (B, H, A), source of further noise) → initial trajectory (B, T+1, H, A)."""


def initial_calls(initialisation: str, calls: int = 1) -> int:
    """Network calls of an initial trajectory, one after the other; as many steps from x₀ on are exact.

    Args:
        initialisation: one of `INITIALISATIONS`.
        calls: M of ``parasolver``.
    """
    return {"parasolver": calls, "gaussian": 1}.get(initialisation, 0)


def make_start(
    initialisation: str, solver: Solver, covariance: Tensor | None = None, calls: int = 1
) -> Start:
    """The initial trajectory of that name.

    Args:
        initialisation: one of `INITIALISATIONS`.
        solver: T steps.
        covariance: (D, D) of the flattened action sequences, for ``gaussian``.
        calls: M of ``parasolver``, at most T.

    Raises:
        ValueError: for an unknown name, ``gaussian`` without a covariance, or several calls of a multistep solver.
    """
    if initialisation == "fresh":
        return lambda denoise, x0, draw: fresh_noise(x0, draw((len(x0), solver.steps, *x0.shape[1:])))
    if initialisation == "repeated":
        return lambda denoise, x0, draw: repeated_noise(x0, solver.steps)
    if initialisation == "parasolver":
        return lambda denoise, x0, draw: parasolver_trajectory(denoise, solver, x0, calls)
    if initialisation == "gaussian":
        if covariance is None:
            raise ValueError("initialisation 'gaussian' needs the covariance of the policy's actions")
        gaussian = gaussian_start(solver, covariance)
        return lambda denoise, x0, draw: gaussian(denoise, x0)
    raise ValueError(
        f"unknown initialisation {initialisation!r}, must be one of {', '.join(INITIALISATIONS)}"
    )


def fresh_noise(x0: Tensor, noise: Tensor) -> Tensor:
    """Independent noise in each later state (ParaDiGMS, Shih et al. 2023, algorithm 1).

    Args:
        x0: (B, H, A).
        noise: (B, T, H, A).
    """
    return torch.cat((x0[:, None], noise), dim=1)


def repeated_noise(x0: Tensor, steps: int) -> Tensor:
    """The noise x₀ (B, H, A) in all T+1 states."""
    return x0[:, None].repeat(1, steps + 1, 1, 1)


def held_prediction(solver: Solver, state: Tensor, prediction: Tensor, first: int, last: int) -> Tensor:
    """The states first+1 … last that follow from the state `first` if the data prediction x̂ never changes.

    x_t = (a_t / a_first)·x_first + Σ_{first≤i<t} C_{t,i}·x̂

    The step after a later state than the noise takes the data prediction before it too if the solver is a multistep
    one, which is refused.

    Args:
        solver: T steps.
        state: (B, H, A).
        prediction: (B, H, A).
        first, last: 0 … T.

    Returns:
        (B, last − first, H, A).

    Raises:
        ValueError: for a multistep solver, unless it starts from the noise.
    """
    if first > 0:
        solver.require_single_steps("a data prediction can only be held from the noise on")
    r = (solver.a[first + 1 : last + 1] / solver.a[first])[:, None, None]
    c = solver.C[first + 1 : last + 1, first:].sum(1)[:, None, None]
    return r * state[:, None] + c * prediction[:, None]


def parasolver_trajectory(denoise: Denoise, solver: Solver, x0: Tensor, calls: int) -> Tensor:
    """M sequential steps, the data prediction of the last of them held for the others (ParaSolver, Lu et al. 2025).

    The states 1 … M are exact.

    Args:
        denoise: the data prediction.
        solver: T steps.
        x0: (B, H, A).
        calls: M, 1 … T.

    Raises:
        ValueError: for a multistep solver and more than one call.
    """
    if calls > 1:
        solver.require_single_steps("the initial trajectory 'parasolver' has one call only")
    states = repeated_noise(x0, solver.steps)
    for i in range(calls):
        prediction = denoise(states[:, i : i + 1], slice(i, i + 1))[:, 0]
        states[:, i + 1 :] = held_prediction(solver, states[:, i], prediction, i, solver.steps)
    return states


def gaussian_start(solver: Solver, covariance: Tensor) -> Callable[[Denoise, Tensor], Tensor]:
    """Trajectory of the probability-flow ODE if the actions were Gaussian, at the price of one network call.

    Given the observation let the actions be N(μ, Σ). The data prediction at the first step is then
    x̂_0 = μ + S_0·(x_0 − √ᾱ_0·μ), which gives μ, and along each principal axis of Σ the ODE has the solution
    x_t = √ᾱ_t·μ + √((ᾱ_t·s + 1 − ᾱ_t) / (ᾱ_0·s + 1 − ᾱ_0))·(x_0 − √ᾱ_0·μ), which is linear in x_0 and x̂_0.

    The network call is also all that the first solver step needs, so that state 1 is exact.

    Args:
        solver: T steps.
        covariance: (D, D) Σ of the flattened action sequences.

    Returns:
        (data prediction, noise x₀ (B, H, A)) → trajectory (B, T+1, H, A).
    """
    variances, basis = torch.linalg.eigh(covariance.double())
    variances = variances.clamp(min=0)
    alpha = solver.alphas_cumprod.double()
    signal = alpha.sqrt()
    gain = gaussian_gain(alpha[:1], variances)[:, 0]  # (D,)
    state_variance = alpha[:, None] * variances + (1 - alpha[:, None])  # (T+1, D)
    spread = (state_variance / state_variance[0]).sqrt()
    of_mean = signal[:, None] - spread * signal[0]  # weights of μ, of x̂_0 in it, and of x_0, each (T+1, D)
    of_prediction = of_mean / (1 - signal[0] * gain)
    of_noise = spread - gain * of_prediction
    maps = torch.stack((of_noise, of_prediction))[..., None, :] * basis @ basis.T  # (2, T+1, D, D)
    identity = torch.eye(len(variances), dtype=maps.dtype, device=maps.device)
    maps[:, 0] = torch.stack((identity, 0 * identity))
    # Of a multistep solver too: its first step has no prediction before it.
    maps[:, 1] = torch.stack((solver.r[0] * identity, solver.c[0] * identity))
    joined = maps.permute(0, 3, 1, 2).reshape(2 * len(variances), -1).to(solver.a)  # (2·D, (T+1)·D)

    def start(denoise: Denoise, x0: Tensor) -> Tensor:
        prediction = denoise(x0[:, None], slice(0, 1))[:, 0]
        known = torch.cat((x0.flatten(1), prediction.flatten(1)), dim=1)
        return (known @ joined).view(len(x0), -1, *x0.shape[1:])

    return start
