"""A normaliser as JSON, by the names of a task's parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from policy.normalizer import SCALINGS, Normalizer, Range
from policy.task import Task

KEYS = ("minimum", "maximum", "mean", "deviation")


def normalizer_values(task: Task, normalizer: Normalizer) -> dict[str, Any]:
    """A normaliser as JSON knows it; `normalizer_from_values` takes it back."""
    return {
        "observation": {
            name: _range_values(normalizer.observation, part) for name, part in task.slices.items()
        },
        "action": _range_values(normalizer.action, slice(None)),
    }


def normalizer_from_values(task: Task, values: Mapping[str, Any]) -> Normalizer:
    """A normaliser from JSON.

    Raises:
        KeyError: for a key that is missing.
        AttributeError, OverflowError, RuntimeError, TypeError, ValueError: for values that are none, or do not fit the
            task. The message names the part.
    """
    parts = values["observation"]
    if set(parts) != set(task.slices):
        raise ValueError(
            f"the normaliser has the parts {', '.join(parts)}, the task has {', '.join(task.slices)}"
        )
    ranges = [_range_from_values(part.name, parts[part.name], part.size) for part in task.vectors]
    return Normalizer(_joined(ranges), _range_from_values("action", values["action"], task.action_dim))


def _range_values(limits: Range, part: slice) -> dict[str, Any]:
    values: dict[str, Any] = {
        "scaling": "limits",
        "minimum": limits.minimum[part].tolist(),
        "maximum": limits.maximum[part].tolist(),
    }
    if limits.mean is not None and limits.deviation is not None and not limits.mean[part].isnan().any():
        values["scaling"] = "mean_deviation"
        values["mean"], values["deviation"] = limits.mean[part].tolist(), limits.deviation[part].tolist()
    return values


def _range_from_values(name: str, values: Mapping[str, Any], size: int) -> Range:
    scaling = values["scaling"]
    if scaling not in SCALINGS:
        raise ValueError(f"the scaling of {name} must be one of {', '.join(SCALINGS)}, got {scaling!r}")
    tensors = []
    for key in KEYS if scaling == "mean_deviation" else KEYS[:2]:
        tensor = torch.tensor(_numbers(name, key, values[key]), dtype=torch.float32)
        if tensor.shape != (size,):
            raise ValueError(f"the {key} of {name} has shape {tuple(tensor.shape)}, need {(size,)}")
        if not tensor.isfinite().all():
            raise ValueError(f"the {key} of {name} must be finite, got {tensor.tolist()}")
        tensors.append(tensor)
    try:
        return Range(*tensors)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _numbers(name: str, key: str, values: object) -> list[float]:
    """A list of JSON's numbers. Torch would read false as 0."""
    if not isinstance(values, list):
        raise ValueError(f"the {key} of {name} must be a list of numbers, got {values!r:.100}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the {key} of {name} must be numbers, got {value!r:.100}")
    return values


def _joined(ranges: list[Range]) -> Range:
    if not ranges:  # a task with pictures only
        return Range(torch.zeros(0), torch.zeros(0))
    minimum, maximum = (torch.cat([getattr(each, key) for each in ranges]) for key in KEYS[:2])
    if all(each.mean is None for each in ranges):
        return Range(minimum, maximum)

    def joined(key: str) -> Tensor:
        """NaN for the parts that are scaled by their limits."""
        parts = [(getattr(each, key), each.minimum) for each in ranges]
        return torch.cat([torch.full_like(like, torch.nan) if part is None else part for part, like in parts])

    return Range(minimum, maximum, mean=joined("mean"), deviation=joined("deviation"))
