"""OpenVINO: the fastest on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from policy.runtime.engine import Evaluate, ModulatedUnet, require_float32_on_cpu, require_library


def openvino(unet: ModulatedUnet, threads: int) -> Evaluate:
    """One graph for each number of samples: one for any number takes twice the time."""
    openvino = require_library("openvino", "openvino")
    require_float32_on_cpu("openvino", unet)
    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # not bfloat16, which it would choose where the CPU has it
        "ENABLE_CPU_PINNING": False,  # the cores are not its own
    }
    model = openvino.convert_model(unet, example_input=unet.buffers_for(2)[:2])
    prepared: dict[int, tuple[Callable[[], Any], tuple[Tensor, Tensor, Tensor]]] = {}

    def prepare(count: int) -> tuple[Callable[[], Any], tuple[Tensor, Tensor, Tensor]]:
        buffers = unet.buffers_for(count)
        shared = [openvino.Tensor(buffer.numpy(), shared_memory=True) for buffer in buffers]
        sized = model.clone()
        sized.reshape({index: list(buffer.shape) for index, buffer in enumerate(buffers[:2])})
        request = core.compile_model(sized, "CPU", options).create_infer_request()
        for index, tensor in enumerate(shared[:2]):
            request.set_input_tensor(index, tensor)
        request.set_output_tensor(0, shared[2])
        return request.infer, buffers

    def evaluate(sample: Tensor, film: Tensor) -> Tensor:
        count = _rounded(len(sample))
        if count not in prepared:
            prepared[count] = prepare(count)
        infer, (samples, films, noise) = prepared[count]
        samples[: len(sample)] = sample
        films[: len(film)] = film
        infer()
        return noise[: len(sample)]

    return evaluate


def _rounded(count: int) -> int:
    """Up, to numbers of which there are few: each takes a copy of the weights. At most a 16th is evaluated in vain."""
    grain = 1 << max(0, (count - 1).bit_length() - 4)
    return -(-count // grain) * grain
