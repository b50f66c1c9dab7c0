"""ParaSolver (Lu et al. 2025, "ParaSolver: A Hierarchical Parallel Integral Solver for Diffusion Models").

The T steps are divided into N sub-intervals. An iteration runs the solver through all sub-intervals at once, each from
its own first state, and corrects these first states by the recurrence with A = I. It is Picard iteration in which a
step is a whole sub-interval. The start takes M sequential steps and holds the data prediction of the last one for the
remaining steps. N = T is ParaDiGMS (Shih et al. 2023) with another start.

A sub-interval of an affine solver is itself an affine step, with a weighted mean of its data predictions. So ParaSolver
is `picard_iterates` with the solver and the data prediction defined here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policy.denoiser import Denoise
from policy.solvers import Solver, solver_of_steps


def sub_interval_solver(solver: Solver, sub_intervals: int) -> Solver:
    """The solver whose steps are N sub-intervals of equally many steps.

    Raises:
        ValueError: unless N divides T, or for a multistep solver and N < T.
    """
    if sub_intervals == solver.steps:
        return solver
    solver.require_single_steps("sub-intervals of several steps start from a state alone")
    if sub_intervals < 1 or solver.steps % sub_intervals:
        raise ValueError(f"{sub_intervals} sub-intervals do not divide {solver.steps} solver steps")
    length = solver.steps // sub_intervals
    C = solver.C[::length].unflatten(1, (sub_intervals, length)).sum(2)
    r = solver.r.unflatten(0, (sub_intervals, length)).prod(1)
    timesteps, alphas_cumprod = solver.timesteps[::length], solver.alphas_cumprod[:-1][::length]
    return solver_of_steps(timesteps, alphas_cumprod, r=r, W=C.diagonal(-1))


def sub_interval_denoise(denoise: Denoise, solver: Solver, sub_intervals: int) -> Denoise:
    """The data prediction that takes the first state of each sub-interval to its end in one step.

    Args:
        denoise: the data prediction x̂ of the T steps; evaluated T/N times in sequence.
        solver: T steps.
        sub_intervals: N.
    """
    length = solver.steps // sub_intervals
    weights = (
        solver.C[length::length].unflatten(1, (sub_intervals, length)).diagonal(dim1=0, dim2=1)
    )  # (T/N, N)
    shares = weights / weights.sum(0)
    c = solver.W.diagonal()

    def denoise_sub_intervals(states: Tensor, which: slice) -> Tensor:
        mean = torch.zeros_like(states)
        for step in range(length):
            steps = slice(which.start * length + step, which.stop * length, length)
            prediction = denoise(states, steps)
            mean = mean + shares[step, which, None, None] * prediction
            states = solver.r[steps, None, None] * states + c[steps, None, None] * prediction
        return mean

    return denoise_sub_intervals


def first_states_denoise(denoise: Denoise, length: int) -> Denoise:
    """The data prediction of the first states of sub-intervals, for the start, whose steps are whole sub-intervals."""
    return lambda states, which: denoise(states, slice(which.start * length, which.stop * length, length))
