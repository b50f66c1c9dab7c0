"""One process, or several under `torchrun`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Worker:
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This worker's rows of a global batch.

        Raises:
            ValueError: if the batch cannot be shared out evenly.
        """
        if batch_size % self.world_size:
            raise ValueError(f"batch_size {batch_size} must be a multiple of the {self.world_size} processes")
        rows = batch_size // self.world_size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a value over all workers."""
        if self.world_size > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
            value /= self.world_size
        return value

    def wait(self) -> None:
        """Wait until every worker calls this."""
        if self.world_size > 1:
            torch.distributed.barrier()


def choose_device(name: str) -> torch.device:
    """The device of a name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: for a device that does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} needs CUDA, which PyTorch does not find here; use device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no device {name!r}: PyTorch finds {torch.cuda.device_count()} here")
    return device


@contextmanager
def worker(device: str) -> Iterator[Worker]:
    """The worker of this process, in the process group that `torchrun` announces in the environment, or alone."""
    chosen = choose_device(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Worker(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Worker(torch.distributed.get_rank(), world_size, chosen)
    finally:
        torch.distributed.destroy_process_group()
