"""Noise schedule of the diffusion process."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def squared_cosine_alphas_cumprod(num_train_timesteps: int = 100, max_beta: float = 0.999) -> Tensor:
    """ᾱ_t of the squared-cosine schedule (Nichol & Dhariwal 2021, eq. 17).

    Returns:
        (num_train_timesteps,) float64, decreasing from almost 1 to almost 0.
    """

    def alpha_bar(fraction: Tensor) -> Tensor:
        return torch.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    timestep = torch.arange(num_train_timesteps, dtype=torch.float64)
    betas = 1 - alpha_bar((timestep + 1) / num_train_timesteps) / alpha_bar(timestep / num_train_timesteps)
    return torch.cumprod(1 - betas.clamp(max=max_beta), dim=0)
