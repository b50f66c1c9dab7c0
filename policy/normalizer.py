"""Linear maps between pixels and [−1, 1] for each dimension: the "limits" mode of Diffusion Policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Range:
    """Limits (D,) of each dimension of a quantity, in its unit.

    Raises:
        ValueError: if the limits are not finite or not increasing.
    """

    minimum: Tensor
    maximum: Tensor

    def __post_init__(self) -> None:
        limits = torch.stack((self.minimum, self.maximum))
        if not limits.isfinite().all():
            raise ValueError(f"limits of a range must be finite, got {limits.tolist()}")
        bad = (self.maximum <= self.minimum).nonzero()
        if len(bad):
            dimension = int(bad[0])
            raise ValueError(f"limits of a range must increase, dimension {dimension} does not vary")

    @classmethod
    def of(cls, samples: Tensor) -> Range:
        """Limits of samples (N, D)."""
        return cls(samples.amin(0), samples.amax(0))

    def normalize(self, x: Tensor) -> Tensor:
        return (x - self.minimum) * (2 / (self.maximum - self.minimum)) - 1

    def unnormalize(self, x: Tensor) -> Tensor:
        return (x + 1) * ((self.maximum - self.minimum) / 2) + self.minimum

    def to(self, device: torch.device | str) -> Range:
        return Range(self.minimum.to(device), self.maximum.to(device))


@dataclass(frozen=True)
class Normalizer:
    """Ranges of the observations (D,) and the actions (A,), both in px for PushT."""

    observation: Range
    action: Range

    def to(self, device: torch.device | str) -> Normalizer:
        return Normalizer(self.observation.to(device), self.action.to(device))
