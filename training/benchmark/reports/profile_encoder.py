"""What the features of a control step's pictures take, against the least that they could take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from pandas import DataFrame
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from policy import DiffusionPolicy
from policy.runtime import PLAIN
from policy.runtime.openvino_encoders import openvino_encoders
from training.benchmark.measurements import percentiles
from training.benchmark.reports.profile_floor import Floor
from training.benchmark.row_cache import Row
from training.benchmark.tables import markdown_table

OPENVINO = "openvino"  # the only engine that has encoders of its own; the others leave them to PyTorch
COLUMNS = {
    "engine": ("engine", ""),
    "ms_p50": ("ms p50", ".2f"),
    "ms_p99": ("ms p99", ".2f"),
    "times_floor": ("× floor", ".1f"),
}


def measure_encoders(
    policy: DiffusionPolicy, engines: Sequence[str], *, threads: int, calls: int, seed: int
) -> Row:
    """Milliseconds of encoding a picture of each camera, by turns through each engine.

    Returns:
        `milliseconds` by engine, and the `flops` and `weight_bytes` of a call.
    """
    assert policy.encoders is not None
    encode: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {PLAIN: policy.encode_images}
    if OPENVINO in engines:
        encode[OPENVINO] = openvino_encoders(policy.encoders, threads)
    generator = torch.Generator().manual_seed(seed)
    pictures = {
        part.name: torch.randint(0, 256, (1, *part.shape), dtype=torch.uint8, generator=generator)
        for part in policy.task.images
    }
    with FlopCounterMode(display=False) as counter:
        policy.encode_images(pictures)
    milliseconds: dict[str, list[float]] = {name: [] for name in encode}
    for call in range(calls + 1):
        for name, function in encode.items():
            started = time.perf_counter()
            function(pictures).cpu()
            if call:  # the first one prepares
                milliseconds[name].append(1000 * (time.perf_counter() - started))
    return {
        "milliseconds": milliseconds,
        "flops": float(counter.get_total_flops()),
        "weight_bytes": float(sum(p.numel() * p.element_size() for p in policy.encoders.parameters())),
    }


def encoder_table(measured: Row, floor: Floor) -> str:
    """A row for each engine, with the times of the machine's floor that a call takes."""
    least = max(measured["flops"] / floor.flops_per_second, measured["weight_bytes"] / floor.bytes_per_second)
    rows = []
    for engine, milliseconds in measured["milliseconds"].items():
        p50, p99 = percentiles(milliseconds, 50, 99)
        rows.append({"engine": engine, "ms_p50": p50, "ms_p99": p99, "times_floor": p50 / (1000 * least)})
    return (
        "Pictures are encoded when they arrive, outside a chunk's time. One of each camera takes "
        f"{measured['flops'] / 1e6:.3g} MFLOP and {measured['weight_bytes'] / 1e6:.3g} MB of weights:\n\n"
        f"{markdown_table(DataFrame(rows), COLUMNS)}"
    )
