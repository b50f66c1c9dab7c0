"""Affine maps between units and what the network sees, for each dimension.

By limits, as Diffusion Policy does: minimum … maximum become −1 … 1. Or by mean and deviation, which become 0 and 1:
for observations whose limits are those of a few outliers. What never varies becomes 0, and comes back as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from policy.task import Task

SCALINGS = ("limits", "mean_deviation")


@dataclass(frozen=True)
class Range:
    """What each dimension (D,) of a quantity was in the training data, in its unit.

    Attributes:
        minimum, maximum: limits.
        mean, deviation: mean and standard deviation of the dimensions that are scaled by them, NaN for those that are
            scaled by their limits; None: all are.

    Raises:
        ValueError: if the limits are not finite or contradict each other, or the mean is not between them.
    """

    minimum: Tensor
    maximum: Tensor
    mean: Tensor | None = None
    deviation: Tensor | None = None

    def __post_init__(self) -> None:
        limits = torch.stack((self.minimum, self.maximum))
        if not limits.isfinite().all() or not (self.maximum - self.minimum).isfinite().all():
            raise ValueError(f"limits of a range must be finite, got {limits.tolist()}")
        bad = (self.maximum < self.minimum).nonzero()
        if len(bad):
            raise ValueError(f"limits of a range must not decrease, dimension {int(bad[0])} does")
        if self.mean is None or self.deviation is None:
            if self.mean is not self.deviation:
                raise ValueError("a range has a mean and a deviation, or neither")
            return
        if self.mean.shape != self.minimum.shape or self.deviation.shape != self.minimum.shape:
            shapes = f"{tuple(self.mean.shape)} and {tuple(self.deviation.shape)}"
            raise ValueError(f"mean and deviation must have the limits' shape, got {shapes}")
        by_mean = ~self.mean.isnan()
        possible = (self.minimum <= self.mean) & (self.mean <= self.maximum) & (self.deviation >= 0)
        bad = (by_mean & ~(possible & self.deviation.isfinite())).nonzero()
        if len(bad):
            raise ValueError(f"mean and deviation of dimension {int(bad[0])} do not fit its limits")

    @classmethod
    def of(cls, samples: Tensor, standardized: Tensor | None = None) -> Range:
        """The range of samples (N, D).

        Args:
            standardized: (D,) whether a dimension is scaled by mean and deviation; none by default.
        """
        minimum, maximum = samples.amin(0), samples.amax(0)
        if standardized is None or not standardized.any():
            return cls(minimum, maximum)
        exact = samples.double()
        mean = exact.mean(0).to(samples.dtype).clamp(minimum, maximum)
        deviation = exact.std(0, correction=0).to(samples.dtype)
        nan = torch.full_like(mean, torch.nan)
        return cls(
            minimum,
            maximum,
            mean=torch.where(standardized, mean, nan),
            deviation=torch.where(standardized, deviation, nan),
        )

    def widened(self, other: Range) -> Range:
        """This range with limits that hold the other's, too. Its mean and deviation stay."""
        return replace(
            self,
            minimum=torch.minimum(self.minimum, other.minimum),
            maximum=torch.maximum(self.maximum, other.maximum),
        )

    @cached_property
    def varies(self) -> Tensor:
        """(D,) whether a dimension took more than one value."""
        return self.maximum > self.minimum

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Center, factor, offset and its inverse (D,): x ↦ (x − center)·factor − offset."""
        center, width = self.minimum, self.maximum - self.minimum
        factor, inverse, offset = 2 / width, width / 2, torch.ones_like(width)
        if self.mean is not None and self.deviation is not None:
            by_mean = ~self.mean.isnan()
            center = torch.where(by_mean, self.mean, center)
            factor = torch.where(by_mean, 1 / self.deviation, factor)
            inverse = torch.where(by_mean, self.deviation, inverse)
            offset = torch.where(by_mean, 0.0, offset)
        # Also where the values differ by less than can be divided by.
        still = ~(self.varies & factor.isfinite())
        zero = torch.zeros_like(width)
        return (
            torch.where(still, self.minimum, center),
            torch.where(still, zero, factor),
            torch.where(still, zero, offset),
            torch.where(still, zero, inverse),
        )

    def normalize(self, x: Tensor) -> Tensor:
        center, factor, offset, _ = self._affine
        return (x - center) * factor - offset

    def unnormalize(self, x: Tensor) -> Tensor:
        center, _, offset, inverse = self._affine
        return (x + offset) * inverse + center

    def to(self, device: torch.device | str) -> Range:
        moved = (
            None if each is None else each.to(device)
            for each in (self.minimum, self.maximum, self.mean, self.deviation)
        )
        return Range(*moved)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Normalizer:
    """Ranges of the vectors' numbers (D,) and the actions (A,), in their units.

    Features of pictures have no range: they are what the network sees.
    """

    observation: Range
    action: Range

    def normalize_rows(self, rows: Tensor) -> Tensor:
        """Observation rows (…, D + F) with the D numbers of the vectors normalised, the F features as they are."""
        numbers = len(self.observation.minimum)
        if rows.shape[-1] == numbers:
            return self.observation.normalize(rows)
        return torch.cat((self.observation.normalize(rows[..., :numbers]), rows[..., numbers:]), -1)

    def widened(self, other: Normalizer) -> Normalizer:
        """See `Range.widened`."""
        return Normalizer(self.observation.widened(other.observation), self.action.widened(other.action))

    def to(self, device: torch.device | str) -> Normalizer:
        return Normalizer(self.observation.to(device), self.action.to(device))


def fit_normalizer(
    task: Task, observations: Tensor, actions: Tensor, *, scaling: Mapping[str, str]
) -> Normalizer:
    """The normaliser of training data.

    Args:
        task: what the numbers are.
        observations: (N, D).
        actions: (N, A), always scaled by their limits: an action outside them was never demonstrated.
        scaling: ``limits`` or ``mean_deviation`` by the name of a part; by limits where it says nothing.

    Raises:
        ValueError: for a part that there is not, or another scaling.
    """
    standardized = torch.zeros(task.observation_dim, dtype=torch.bool)
    for name, kind in scaling.items():
        if name not in task.slices:
            raise ValueError(f"normalization.{name}: the task has the parts {', '.join(task.slices)}")
        if kind not in SCALINGS:
            raise ValueError(f"normalization.{name} must be one of {', '.join(SCALINGS)}, got {kind!r}")
        standardized[task.slices[name]] = kind == "mean_deviation"
    return Normalizer(Range.of(observations, standardized), Range.of(actions))
