"""Timesteps at which a solver evaluates the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Spacing: TypeAlias = Callable[[Tensor, int], Tensor]
"""(ᾱ of the training timesteps, steps T) → (T,) decreasing timesteps. Raises ValueError unless 1 ≤ T ≤ their number."""

KARRAS_POWER = 7.0  # ρ


def leading_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps (T,) ending at 0: Diffusion Policy's spacing ("leading" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    _check_steps(steps, len(alphas_cumprod))
    return torch.arange(steps - 1, -1, -1) * (len(alphas_cumprod) // steps)


def linspace_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps (T,) from the last one down to the one before 0 ("linspace" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    total = len(alphas_cumprod)
    _check_steps(steps, total)
    return _apart(torch.linspace(total - 1, 0, steps + 1, dtype=torch.float64)[:-1].round().long(), total)


def trailing_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Evenly spaced timesteps (T,) from the last one down, each at the end of its part ("trailing" in diffusers).

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    total = len(alphas_cumprod)
    _check_steps(steps, total)
    return (total - torch.arange(steps).double() * (total / steps)).round().long() - 1


def log_snr_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Timesteps (T,) that cut the logarithmic signal-to-noise ratio λ = log(√ᾱ / √(1−ᾱ)) into equal parts.

    This is DPM-Solver's own spacing (Lu et al. 2022, arXiv:2206.00927, section 3.4). λ → −∞ at the noise, so it must be
    cut off: the first timestep is the middle of the first of T equal parts of the training timesteps. The last is 0.

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    first = _first_timestep(alphas_cumprod, steps)
    log_snr = torch.special.logit(alphas_cumprod.double())  # 2λ
    return _nearest(log_snr, log_snr[first] + _ramp(steps) * (log_snr[0] - log_snr[first]))


def karras_timesteps(alphas_cumprod: Tensor, steps: int) -> Tensor:
    """Timesteps (T,) that cut σ^(1/7), σ = √((1−ᾱ)/ᾱ), into equal parts (Karras et al. 2022, arXiv:2206.00364, eq. 5).

    Cut off as `log_snr_timesteps` are. Each is the nearest training timestep, as the network knows no others.

    Raises:
        ValueError: unless 1 ≤ steps ≤ training timesteps.
    """
    first = _first_timestep(alphas_cumprod, steps)
    log_snr = torch.special.logit(alphas_cumprod.double())  # −2·log σ
    root = (-log_snr / (2 * KARRAS_POWER)).exp()
    wanted = root[first] + _ramp(steps) * (root[0] - root[first])
    return _nearest(log_snr, -2 * KARRAS_POWER * wanted.log())


SPACINGS: Mapping[str, Spacing] = {
    "leading": leading_timesteps,
    "linspace": linspace_timesteps,
    "trailing": trailing_timesteps,
    "log_snr": log_snr_timesteps,
    "karras": karras_timesteps,
}


def alphas_around_steps(alphas_cumprod: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """ᾱ before and after each step, both (T,). In float64, because their small differences are divided."""
    alpha = alphas_cumprod.double()[timesteps]
    return alpha, torch.cat((alpha[1:], alpha.new_ones(1)))


def _check_steps(steps: int, num_train_timesteps: int) -> None:
    if not 1 <= steps <= num_train_timesteps:
        raise ValueError(f"steps must be in 1 … {num_train_timesteps} (training timesteps), got {steps}")


def _first_timestep(alphas_cumprod: Tensor, steps: int) -> int:
    """Where a spacing that would begin with an endless noise is cut off."""
    total = len(alphas_cumprod)
    _check_steps(steps, total)
    return (2 * steps - 1) * total // (2 * steps)


def _ramp(steps: int) -> Tensor:
    return torch.linspace(0, 1, steps).double()


def _nearest(log_snr: Tensor, wanted: Tensor) -> Tensor:
    return _apart((log_snr - wanted[:, None]).abs().argmin(1), len(log_snr))


def _apart(timesteps: Tensor, total: int) -> Tensor:
    """The timesteps (T,), with neighbours that are the same moved apart."""
    order = torch.arange(len(timesteps))
    distinct = (timesteps + order).flip(0).cummax(0).values.flip(0) - order
    return torch.minimum(distinct, total - 1 - order)
