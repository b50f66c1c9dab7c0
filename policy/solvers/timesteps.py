"""Timesteps at which a solver evaluates the network."""

from __future__ import annotations

import torch
from torch import Tensor


def leading_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps (T,) ending at 0: Diffusion Policy's spacing ("leading" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    _check_steps(steps, len(alphas_cumprod))
    return torch.arange(steps - 1, -1, -1) * (len(alphas_cumprod) // steps)


def log_snr_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Timesteps (T,) that cut the logarithmic signal-to-noise ratio λ = log(√ᾱ / √(1−ᾱ)) into equal parts.

    This is DPM-Solver's own spacing (Lu et al. 2022, arXiv:2206.00927, section 3.4). λ → −∞ at the noise, so it must be
    cut off: the first timestep is the middle of the first of T equal parts of the training timesteps. The last is 0.

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    total = len(alphas_cumprod)
    _check_steps(steps, total)
    log_snr = torch.special.logit(alphas_cumprod.double())  # 2λ
    first = (2 * steps - 1) * total // (2 * steps)
    wanted = log_snr[first] + torch.linspace(0, 1, steps).double() * (log_snr[0] - log_snr[first])
    nearest = (log_snr - wanted[:, None]).abs().argmin(1)
    # Where λ changes fast, several parts fall on one timestep. Neighbours are moved apart.
    order = torch.arange(steps)
    distinct = (nearest + order).flip(0).cummax(0).values.flip(0) - order
    return torch.minimum(distinct, total - 1 - order)


def alphas_around_steps(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ before and after each step, both (T,). In float64, because their small differences are divided."""
    alpha = alphas_cumprod.double()[timesteps]
    return alpha, torch.cat((alpha[1:], alpha.new_ones(1)))


def _check_steps(steps: int, num_train_timesteps: int) -> None:
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps must be in 1 … {num_train_timesteps} (training timesteps), got {steps}")
