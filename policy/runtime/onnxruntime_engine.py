"""The engine `onnxruntime`: ONNX Runtime on a CPU."""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor

from policy.runtime.engine import Evaluate, ModulatedUnet, require_float32_on_cpu, require_library


def onnxruntime(unet: ModulatedUnet, threads: int) -> Evaluate:
    """One graph for any number of samples, with static inputs and outputs for each."""
    onnxruntime = require_library("onnxruntime", "onnxruntime")
    require_library("onnxruntime", "onnxscript")
    require_float32_on_cpu("onnxruntime", unet)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(_export(unet), options, providers=["CPUExecutionProvider"])
    names = [session.get_inputs()[0].name, session.get_inputs()[1].name, session.get_outputs()[0].name]
    prepared = {}

    def evaluate(sample: Tensor, film: Tensor) -> Tensor:
        count = len(sample)
        if count not in prepared:
            buffers = unet.buffers_for(count)
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(b.numpy()) for b in buffers]
            binding = session.io_binding()
            for name, value in zip(names[:2], values[:2], strict=True):
                binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(names[2], values[2])
            prepared[count] = binding, [torch.from_numpy(value.numpy()) for value in values]
        binding, (samples, films, noise) = prepared[count]
        samples.copy_(sample)
        films.copy_(film)
        session.run_with_iobinding(binding)
        return noise

    return evaluate


def _export(unet: ModulatedUnet) -> bytes:
    sample, film, _ = unet.buffers_for(2)
    any_number = {0: torch.export.Dim("samples", min=1, max=2**16)}
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are about the exporter's own parts
            program = torch.onnx.export(
                unet, (sample, film), dynamic_shapes=(any_number, any_number), dynamo=True, verbose=False
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    exported: bytes = program.model_proto.SerializeToString()
    return exported
