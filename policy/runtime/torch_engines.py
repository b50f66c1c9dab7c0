"""The engines of PyTorch itself, on any device and in any precision."""

from __future__ import annotations

import torch

from policy.runtime.engine import EngineError, Evaluate, ModulatedUnet


def eager(unet: ModulatedUnet, threads: int) -> Evaluate:
    """The network as it is: each operation is launched from Python."""
    return unet


def compiled(unet: ModulatedUnet, threads: int) -> Evaluate:
    """`torch.compile`, which needs a C++ compiler and takes minutes. On CUDA in its mode with CUDA graphs."""
    if " " in torch.__file__:
        raise EngineError(
            f"engine 'compile' needs PyTorch at a path without spaces, it is at {torch.__file__}"
        )
    on_cuda = next(unet.parameters()).is_cuda
    # Its graphs are recorded for each number of samples.
    evaluate: Evaluate = (
        torch.compile(unet, mode="reduce-overhead") if on_cuda else torch.compile(unet, dynamic=True)
    )
    return evaluate
