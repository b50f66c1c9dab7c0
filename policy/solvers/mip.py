"""The two evaluations of a Minimal Iterative Policy (Pan et al. 2025, arXiv:2512.01809)."""

from __future__ import annotations

import torch
from torch import Tensor

from policy.solvers.solver import Solver

STEPS = 2
SECOND_TIME = 0.9  # t of the second evaluation; the first one is at t = 0


def mip(alphas_cumprod: Tensor, steps: int) -> Solver:
    """x_1 = x̂_0(0), x_2 = x̂_1(x_1): the noise plays no role, and the network's output is x̂ itself.

    Raises:
        ValueError: unless steps is 2.
    """
    if steps != STEPS:
        raise ValueError(f"the solver mip has {STEPS} steps, got {steps}")
    timesteps = mip_timesteps(len(alphas_cumprod))
    solver = Solver(
        timesteps,
        alphas_cumprod=torch.cat((alphas_cumprod.double()[timesteps], torch.ones(1, dtype=torch.float64))),
        a=torch.zeros(STEPS + 1, dtype=torch.float64),
        C=torch.eye(STEPS + 1, dtype=torch.float64)[:, 1:],
        predicts_data=True,
    )
    W = torch.eye(STEPS, dtype=torch.float64)
    vars(solver).update(r=torch.zeros(STEPS, dtype=torch.float64), W=W)  # 0 / 0 otherwise
    return solver


def mip_timesteps(num_train_timesteps: int) -> Tensor:
    """(2,) what the network is told of t = 0 and t = 0.9: the timestep counts down while t grows."""
    return torch.tensor([num_train_timesteps - 1, round((1 - SECOND_TIME) * (num_train_timesteps - 1))])
