"""The loss of a Minimal Iterative Policy (Pan et al. 2025, arXiv:2512.01809): regression in two steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from policy.solvers.mip import SECOND_TIME, mip_timesteps
from training.policy.noise_prediction import TrainingData


def mip_loss(
    network: Callable[..., Tensor],
    data: TrainingData,
    rows: Tensor,
    *,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
    share: slice,
) -> Tensor:
    """Mean of ‖a − f(0, 0)‖² / 0.9² + ‖a − f(a + 0.1·z, 0.9)‖² / 0.1² over this worker's share of the rows (B,).

    f(input, t) is the network's output, the actions themselves. The weights are those of the authors' code.
    """
    noise = torch.randn((len(rows), *data.actions.shape[1:]), generator=generator, device=generator.device)
    actions, condition, noise = data.actions[rows[share]], data.condition[rows[share]], noise[share]
    left = 1 - SECOND_TIME
    timesteps = mip_timesteps(len(alphas_cumprod)).to(actions.device).repeat_interleave(len(actions))
    inputs = torch.cat((torch.zeros_like(actions), actions + left * noise))
    first, second = network(inputs, timesteps, condition.repeat(2, 1)).float().chunk(2)
    mse = nn.functional.mse_loss
    return mse(first, actions) / SECOND_TIME**2 + mse(second, actions) / left**2
