"""OpenVINO: the fastest on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
    prepared: dict[int, tuple[Callable[[], Any], tuple[Tensor, Tensor, Tensor]]] = {}

    def prepare(count: int) -> tuple[Callable[[], Any], tuple[Tensor, Tensor, Tensor]]:
        buffers = unet.buffers_for(count)
        sample, film, noise = (openvino.Tensor(buffer.numpy(), shared_memory=True) for buffer in buffers)
        model = _Graph(openvino, unet).build(count)
        request = core.compile_model(model, "CPU", options).create_infer_request()
        request.set_input_tensor(0, sample)
        request.set_input_tensor(1, film)
        request.set_output_tensor(0, noise)
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


class _Graph:
    """`ConditionalUnet1D.forward_modulated` in OpenVINO's operations, which saves tracing it for seconds."""

    def __init__(self, openvino: Any, unet: ModulatedUnet) -> None:
        self.ops = openvino.opset15
        self.model = openvino.Model
        self.unet = unet

    def build(self, count: int) -> Any:
        """Model of inputs (N, H, A) and (N, F), and output (N, H, A)."""
        ops, network = self.ops, self.unet.network
        sample, film, _ = (
            ops.parameter(list(b.shape), b.numpy().dtype) for b in self.unet.buffers_for(count)
        )
        films = iter(ops.variadic_split(ops.unsqueeze(film, 2), 1, list(self.unet.widths)).outputs())
        x = ops.transpose(sample, [0, 2, 1])
        skips = []
        for level in network.down:
            first, second, halve = level.children()
            x = self.block(self.block(x, first, next(films)), second, next(films))
            skips.append(x)
            x = x if isinstance(halve, nn.Identity) else self.convolution(x, halve)
        for middle in network.middle:
            x = self.block(x, middle, next(films))
        for level in network.up:
            first, second, double = level.children()
            x = ops.concat([x, skips.pop()], 1)
            x = self.doubled(self.block(self.block(x, first, next(films)), second, next(films)), double)
        x = self.convolution(self.conv_block(x, network.head[0]), network.head[1])
        return self.model([ops.transpose(x, [0, 2, 1])], [sample, film])

    def block(self, x: Any, block: Any, film: Any) -> Any:
        ops = self.ops
        scale, bias = ops.split(film, 1, 2).outputs()
        hidden = ops.add(ops.multiply(self.conv_block(x, block.conv_in), scale), bias)
        skip = x if isinstance(block.residual, nn.Identity) else self.convolution(x, block.residual)
        return ops.add(self.conv_block(hidden, block.conv_out), skip)

    def conv_block(self, x: Any, block: Any) -> Any:
        convolution, norm, _ = block.children()
        x = self.convolution(x, convolution)
        weight, bias = self.constant(norm.weight), self.constant(norm.bias)
        return self.ops.mish(self.ops.group_normalization(x, weight, bias, norm.num_groups, norm.eps))

    def convolution(self, x: Any, layer: Any) -> Any:
        return self.convolved(x, layer.weight, layer.bias, layer.stride, layer.padding)

    def convolved(self, x: Any, weight: Tensor, bias: Tensor, stride: Any, padding: Any) -> Any:
        ops = self.ops
        product = ops.convolution(x, self.constant(weight), list(stride), list(padding), list(padding), [1])
        return ops.add(product, self.constant(bias[None, :, None]))

    def doubled(self, x: Any, layer: Any) -> Any:
        """The transposed convolution (kernel 4, stride 2, padding 1) as a convolution, which is faster.

        y_{2i} = w_3·x_{i−1} + w_1·x_i and y_{2i+1} = w_2·x_i + w_0·x_{i+1} become two channels of position i.
        """
        taps = layer.weight.detach().transpose(0, 1)  # (O, I, 4)
        none = torch.zeros_like(taps[..., 0])
        even = torch.stack((taps[..., 3], taps[..., 1], none), -1)
        odd = torch.stack((none, taps[..., 2], taps[..., 0]), -1)
        channels = len(taps)
        y = self.convolved(x, torch.cat((even, odd)), layer.bias.repeat(2), (1,), (1,))  # (N, 2·O, H)
        y = self.ops.reshape(y, [0, 2, channels, -1], special_zero=True)
        y = self.ops.transpose(y, [0, 2, 3, 1])
        return self.ops.reshape(y, [0, channels, -1], special_zero=True)

    def constant(self, tensor: Tensor) -> Any:
        return self.ops.constant(tensor.detach().contiguous().numpy())
