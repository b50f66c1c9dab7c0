"""The noise-prediction loss of DDPM (Ho et al. 2020, eq. 14), on normalised windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy import Normalizer
from training.data.windows import Windows


@dataclass(frozen=True)
class TrainingData:
    """Normalised windows on a device: condition (W, C) and actions (W, H, A)."""

    condition: Tensor
    actions: Tensor

    @classmethod
    def of(cls, windows: Windows, normalizer: Normalizer, device: torch.device) -> TrainingData:
        condition = normalizer.normalize_rows(windows.observations).flatten(1)
        return cls(condition.to(device), normalizer.action.normalize(windows.actions).to(device))


def noise_prediction_loss(
    network: Callable[..., Tensor],
    data: TrainingData,
    rows: Tensor,
    *,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
    share: slice,
) -> Tensor:
    """Mean of ‖ε − ε_θ(√ᾱ_t·x + √(1−ᾱ_t)·ε, t, condition)‖² over this worker's share of the rows (B,).

    Timesteps and noises are drawn for all rows: the share only decides which worker computes which rows.
    """
    timesteps = torch.randint(len(alphas_cumprod), rows.shape, generator=generator, device=generator.device)
    noise = torch.randn((len(rows), *data.actions.shape[1:]), generator=generator, device=generator.device)
    rows, timesteps, noise = rows[share], timesteps[share], noise[share]
    alpha = alphas_cumprod[timesteps, None, None]
    noisy = alpha.sqrt() * data.actions[rows] + (1 - alpha).sqrt() * noise
    prediction = network(noisy, timesteps, data.condition[rows])
    return nn.functional.mse_loss(prediction.float(), noise)
