"""The engine `cudagraph`: a whole chunk captured once as a CUDA graph, and replayed over buffers that stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from policy.runtime.chunk_function import ChunkFunction
from policy.runtime.engine import EngineError
from policy.runtime.whole_chunk import EvaluateChunk

WARM_UP_CALLS = 3  # libraries choose their kernels in the first ones, which cannot be captured


class StaticBuffers:
    """Named tensors (B, …) at fixed addresses on a device, with a copy on the host, pinned beside CUDA.

    Args:
        shapes: name → shape without the batch.
        batch_size: B.
        like: tensor of the device and precision.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], batch_size: int, like: Tensor) -> None:
        sizes = {name: (batch_size, *shape) for name, shape in shapes.items()}
        self.on_device = {name: like.new_zeros(size) for name, size in sizes.items()}
        self.on_host = {
            name: torch.zeros(size, dtype=like.dtype, pin_memory=like.is_cuda) for name, size in sizes.items()
        }

    def write(self, values: Mapping[str, Tensor]) -> None:
        """Copy values in, through the host's copy if they are there.

        Raises:
            ValueError: for another name or shape.
        """
        if values.keys() != self.on_device.keys():
            raise ValueError(f"inputs must be {', '.join(self.on_device)}, got {', '.join(values)}")
        for name, value in values.items():
            buffer = self.on_device[name]
            if value.shape != buffer.shape:
                raise ValueError(f"{name} must have shape {tuple(buffer.shape)}, got {tuple(value.shape)}")
            source = value if value.is_cuda else self.on_host[name].copy_(value)
            buffer.copy_(source, non_blocking=True)

    def read(self) -> dict[str, Tensor]:
        """The values on the host, once the device has computed them."""
        for name, buffer in self.on_device.items():
            self.on_host[name].copy_(buffer, non_blocking=True)
        if any(buffer.is_cuda for buffer in self.on_device.values()):
            torch.cuda.current_stream().synchronize()
        return {name: value.clone() for name, value in self.on_host.items()}


@torch.no_grad()
def cudagraph(function: ChunkFunction, batch_size: int, threads: int) -> EvaluateChunk:
    """Capture a chunk function. A replay launches nothing but the graph.

    Raises:
        EngineError: for a policy that is not on CUDA.
    """
    reference = function.policy.solver.a
    if not reference.is_cuda:
        raise EngineError(f"engine 'cudagraph' needs a policy on CUDA, got {reference.device}")
    inputs = StaticBuffers(function.inputs, batch_size, reference)
    outputs = StaticBuffers(function.outputs, batch_size, reference)
    arguments = tuple(inputs.on_device.values())
    stream = torch.cuda.Stream(reference.device)
    stream.wait_stream(torch.cuda.current_stream(reference.device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP_CALLS):
            function(*arguments)
    torch.cuda.current_stream(reference.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for buffer, value in zip(outputs.on_device.values(), function(*arguments), strict=True):
            buffer.copy_(value)

    def evaluate(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs.write(values)
        graph.replay()
        return outputs.read()

    return evaluate
