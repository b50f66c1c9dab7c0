"""The engines of PyTorch itself, on any device and in any precision. An engine with CUDA graphs belongs here."""

from __future__ import annotations

import torch

from policy.runtime.engine import EngineError, Evaluate, ModulatedUnet


def eager(unet: ModulatedUnet, threads: int) -> Evaluate:
    """The network as it is: each operation is launched from Python."""
    return unet


def compiled(unet: ModulatedUnet, threads: int) -> Evaluate:
    """`torch.compile`, which needs a C++ compiler and takes minutes."""
    if " " in torch.__file__:
        raise EngineError(
            f"engine 'compile' needs PyTorch at a path without spaces, it is at {torch.__file__}"
        )
    evaluate: Evaluate = torch.compile(unet, dynamic=True)
    return evaluate
