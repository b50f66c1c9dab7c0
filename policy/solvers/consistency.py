"""Sampling from a consistency model (Song et al. 2023, arXiv:2303.01469, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.solver import Solver, solver_of_steps
from policy.solvers.timesteps import alphas_around_steps, leading_timesteps

DISTILLED_STEPS = 10
"""Steps of DDIM whose answer is distilled. Their timesteps are those that the network was trained at."""


def consistency(alphas_cumprod: Tensor, steps: int) -> Solver:
    """x_{i+1} = √ᾱ_{i+1}·x̂_i + √(1−ᾱ_{i+1})·z_i: the answer in one step, then noise again and another answer.

    Raises:
        ValueError: unless 1 ≤ steps ≤ 10.
    """
    if not 1 <= steps <= DISTILLED_STEPS:
        raise ValueError(f"the solver consistency has 1 … {DISTILLED_STEPS} steps, got {steps}")
    trained = leading_timesteps(alphas_cumprod, DISTILLED_STEPS)
    timesteps = trained[torch.arange(steps) * DISTILLED_STEPS // steps]
    alpha, alpha_next = alphas_around_steps(alphas_cumprod, timesteps)
    noise = (1 - alpha_next).sqrt() if steps > 1 else None
    return solver_of_steps(timesteps, alpha, r=torch.zeros_like(alpha), W=alpha_next.sqrt(), s=noise)
