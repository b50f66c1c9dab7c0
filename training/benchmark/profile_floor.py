"""The least time that a machine could take for a network: its arithmetic, or reading its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from policy import DiffusionPolicy
from policy.film import hoist_film
from policy.runtime.engine import ModulatedUnet

MATRIX_SIZE = 1024


@dataclass(frozen=True)
class Floor:
    """What a network takes, and what the machine gives.

    Attributes:
        flops: of one evaluation, from FiLM on.
        weight_bytes: that it reads, however many samples go through it at once.
        flops_per_second: of products of large float32 matrices, by the faster of two libraries.
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
    square = torch.ones(MATRIX_SIZE, MATRIX_SIZE, dtype=torch.float32, device=reference.device)
    # The same product as a convolution, which PyTorch hands to another library.
    image = square.view(1, 32, 32, MATRIX_SIZE).permute(0, 3, 1, 2)
    kernel = square[:, :, None, None].contiguous(memory_format=torch.channels_last)
    read = torch.ones(weights, dtype=reference.dtype, device=reference.device)
    product = min(
        _seconds("square @ square", {"square": square}, threads),
        _seconds(
            "conv2d(image, kernel)", {"conv2d": torch.conv2d, "image": image, "kernel": kernel}, threads
        ),
    )
    weight_bytes = weights * reference.element_size()
    return Floor(
        float(counter.get_total_flops()),
        float(weight_bytes),
        2 * MATRIX_SIZE**3 / product,
        weight_bytes / _seconds("read.sum()", {"read": read}, threads),
    )


def _seconds(statement: str, names: dict[str, object], threads: int) -> float:
    """The least of many measurements: anything else on the machine only adds."""
    timer = Timer(statement, globals=names, num_threads=threads)
    return min(timer.timeit(2).mean for _ in range(25))
