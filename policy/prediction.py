"""A policy's answer, and the checks and noises before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator]
"""One source of noise for the whole batch, or one for each sample."""


@dataclass(frozen=True)
class Prediction:
    """A policy's answer to a batch of observations.

    Attributes:
        chunk: (B, action_steps, A) commands in the task's units, to execute from the newest observation on; finite and
            inside the range of the training data.
        actions: (B, H, A) commands over the whole horizon, which begins at the oldest observation.
        depth: number of sequential network evaluations.
        network_evaluations: number of all network evaluations, samples × timesteps, over the whole batch.
        residual: (B,) root mean square by which the last iteration moved the normalised actions; 0 for a sequential
            sampler.
        noise: (B, H, A) noise that the actions came from.
        cut: whether the sampler was stopped by its deadline.
    """

    chunk: Tensor
    actions: Tensor
    depth: int
    network_evaluations: int
    residual: Tensor
    noise: Tensor
    cut: bool = False


def check_tensor(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that is not (B, *shape) or not finite.

    Raises:
        ValueError: for such a tensor. The message names it and the first bad index.
    """
    if tensor.ndim != 1 + len(shape) or tensor.shape[1:] != shape:
        need = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name} must have shape (B, {need}), got {tuple(tensor.shape)}")
    if not tensor.isfinite().all():
        index = tuple(int(i) for i in (~tensor.isfinite()).nonzero()[0])
        raise ValueError(f"{name}{list(index)} is {tensor[index].item()}, must be finite")


def draw_noise(shape: tuple[int, ...], generator: Generators | None, like: Tensor) -> Tensor:
    """Standard normal noise (B, …) on the device and in the precision of another tensor.

    Raises:
        ValueError: if there are not as many generators as samples.
    """
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise ValueError(f"got {len(generator)} generators for {shape[0]} observations")
        return torch.cat([draw_noise((1, *shape[1:]), one, like) for one in generator])
    # Drawn where the generator lives, so that one seed means the same noise on every device.
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(like)
