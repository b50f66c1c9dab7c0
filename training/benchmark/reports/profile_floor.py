"""The least time that a machine could take for a network: its arithmetic, or reading its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import conv2d
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from policy import DiffusionPolicy
from policy.networks.film import hoist_film
from policy.runtime.engine import ModulatedUnet

MATRIX_SIZE = 1024
CHANNELS, SIDE = 256, 32
"""Of a convolution with a kernel of 3 × 3."""


@dataclass(frozen=True)
class Floor:
    """What a network takes, and what the machine gives.

    Attributes:
        flops: of one evaluation, from FiLM on.
        weight_bytes: that it reads, however many samples go through it at once.
        flops_per_second: of a product of large float32 matrices, or a convolution of many channels: the faster.
        bytes_per_second: at which numbers are read that take as much memory as the weights.
    """

    flops: float
    weight_bytes: float
    flops_per_second: float
    bytes_per_second: float

    def milliseconds(self, calls: Sequence[int]) -> float:
        """For network calls one after the other, of so many samples each."""
        reading = self.weight_bytes / self.bytes_per_second
        return 1000 * sum(max(count * self.flops / self.flops_per_second, reading) for count in calls)


@torch.no_grad()
def measure_floor(policy: DiffusionPolicy, threads: int) -> Floor:
    """The floor of a policy's network on its device."""
    film = hoist_film(policy.network, policy.solver.timesteps)
    unet = ModulatedUnet(policy.network, policy.config.horizon, film.widths)
    counter = FlopCounterMode(display=False)
    with counter:
        unet(*unet.buffers_for(1)[:2])
    hoisted = (policy.network.timestep_encoder, *(block.film for block in policy.network.blocks))
    weights = sum(p.numel() for p in policy.network.parameters())
    weights -= sum(p.numel() for module in hoisted for p in module.parameters())

    reference = policy.solver.a
    ones = partial(torch.ones, dtype=torch.float32, device=reference.device)
    products = {"square": ones(MATRIX_SIZE, MATRIX_SIZE)}
    # PyTorch hands convolutions to another library than products, which may be faster.
    convolutions = {
        "conv2d": conv2d,
        "image": ones(1, CHANNELS, SIDE + 2, SIDE + 2).to(memory_format=torch.channels_last),
        "kernel": ones(CHANNELS, CHANNELS, 3, 3).to(memory_format=torch.channels_last),
    }
    rates = (
        2 * MATRIX_SIZE**3 / _seconds("square @ square", products, threads),
        2 * (CHANNELS * SIDE * 3) ** 2 / _seconds("conv2d(image, kernel)", convolutions, threads),
    )
    read = torch.ones(weights, dtype=reference.dtype, device=reference.device)
    weight_bytes = weights * reference.element_size()
    return Floor(
        flops=float(counter.get_total_flops()),
        weight_bytes=float(weight_bytes),
        flops_per_second=max(rates),
        bytes_per_second=weight_bytes / _seconds("read.sum()", {"read": read}, threads),
    )


def _seconds(statement: str, names: Mapping[str, Any], threads: int) -> float:
    """The least of many measurements: anything else on the machine only adds."""
    timer = Timer(statement, globals=dict(names), num_threads=threads)
    return min(timer.timeit(2).mean for _ in range(25))
