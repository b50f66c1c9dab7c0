"""The interface of an engine, which evaluates one network, from its FiLM on."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TypeAlias

import torch
from torch import Tensor, nn

from policy.networks.unet import ConditionalUnet1D

Evaluate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(noisy action sequences (N, H, A), FiLM of all blocks (N, F)) → predicted noise (N, H, A).

The result is only valid until the next call.
"""

MakeEngine: TypeAlias = Callable[["ModulatedUnet", int], Evaluate]
"""(network, CPU threads) → its evaluation, which may compile the network at the first call with each N.

Raises `EngineError` if the engine cannot evaluate the network.
"""


class EngineError(RuntimeError):
    """An engine that cannot serve the policy. The message names the engine and what it needs."""


class ModulatedUnet(nn.Module):
    """A network from its FiLM on, as one graph with two inputs.

    Args:
        network: network without adapters, in evaluation mode.
        horizon: number H of actions in a sequence.
        widths: widths of its blocks' FiLM, as in `HoistedFilm`.
    """

    def __init__(self, network: ConditionalUnet1D, horizon: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.horizon = horizon
        self.widths = widths

    def forward(self, sample: Tensor, film: Tensor) -> Tensor:
        """Predicted noise (N, H, A) for samples (N, H, A) and FiLM (N, F)."""
        return self.network.forward_modulated(sample, film.split(self.widths, dim=1))

    def buffers_for(self, samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros in the shapes of the two inputs, (N, H, A) and (N, F), and of the output, (N, H, A)."""
        weight = next(self.network.parameters())
        shape = (samples, self.horizon, self.network.action_dim)
        return weight.new_zeros(shape), weight.new_zeros(samples, sum(self.widths)), weight.new_zeros(shape)


def require_float32_on_cpu(engine: str, unet: ModulatedUnet) -> None:
    """Refuse a network that only PyTorch itself can evaluate.

    Raises:
        EngineError: for another device or precision.
    """
    weight = next(unet.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise EngineError(
            f"engine {engine!r} needs float32 on the CPU, got {weight.dtype} on {weight.device}"
        )


def require_library(engine: str, library: str) -> ModuleType:
    """Import an optional library.

    Raises:
        EngineError: if it is not installed.
    """
    if find_spec(library) is None:
        raise EngineError(f"engine {engine!r} needs the Python package {library}: pip install {library}")
    return import_module(library)
