"""The engine `openvino`: OpenVINO, the fastest on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from policy.runtime.engine import Evaluate, ModulatedUnet, require_float32_on_cpu, require_library


def openvino(unet: ModulatedUnet, threads: int) -> Evaluate:
    """Graphs for fixed numbers of samples: a graph for any number takes twice the time.

    Several samples are shared out among the threads, so that threads need not wait for each other after each operation.
    """
    openvino = require_library("openvino", "openvino")
    require_float32_on_cpu("openvino", unet)
    core = openvino.Core()
    compiled: dict[tuple[int, int], tuple[list[Any], tuple[Tensor, Tensor, Tensor]]] = {}
    chosen: dict[int, tuple[int, int]] = {}

    def choose(count: int) -> tuple[int, int]:
        shares = min(threads, count)
        least = -(-count // shares)
        # Another size would need its own copy of the weights in the cache, which costs more than idle samples.
        fitting = [size for built, size in compiled if built == shares and least <= size <= least * 4 / 3]
        return shares, min(fitting, default=least)

    def build(shares: int, size: int) -> tuple[list[Any], tuple[Tensor, Tensor, Tensor]]:
        options = {
            "NUM_STREAMS": shares,
            "INFERENCE_NUM_THREADS": shares,
            "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16 where the CPU has it
            "ENABLE_CPU_PINNING": False,  # other processes use the cores too
        }
        model = core.compile_model(_Graph(openvino, unet).build(size), "CPU", options)
        buffers = unet.buffers_for(shares * size)
        requests = []
        for share in range(shares):
            request = model.create_infer_request()
            sample, film, noise = (
                openvino.Tensor(buffer[share * size : (share + 1) * size].numpy(), shared_memory=True)
                for buffer in buffers
            )
            request.set_input_tensor(0, sample)
            request.set_input_tensor(1, film)
            request.set_output_tensor(0, noise)
            requests.append(request)
        return requests, buffers

    def evaluate(sample: Tensor, film: Tensor) -> Tensor:
        count = len(sample)
        if count not in chosen:
            chosen[count] = choose(count)
            if chosen[count] not in compiled:
                compiled[chosen[count]] = build(*chosen[count])
        requests, (samples, films, noise) = compiled[chosen[count]]
        samples[:count] = sample
        films[:count] = film
        if len(requests) == 1:
            requests[0].infer()
        else:
            for request in requests:
                request.start_async()
            for request in requests:
                request.wait()
        return noise[:count]

    return evaluate


class _Graph:
    """`ConditionalUnet1D.forward_modulated` in OpenVINO's operations. Tracing it would take seconds."""

    def __init__(self, openvino: Any, unet: ModulatedUnet) -> None:
        self.ops = openvino.opset15
        self.model = openvino.Model
        self.unet = unet

    def build(self, count: int) -> Any:
        """Model with the inputs (N, H, A) and (N, F), and the output (N, H, A)."""
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
        return self.convolved(x, layer.weight, layer.bias, stride=layer.stride, padding=layer.padding)

    def convolved(self, x: Any, weight: Tensor, bias: Tensor, *, stride: Any, padding: Any) -> Any:
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
        y = self.convolved(
            x, torch.cat((even, odd)), layer.bias.repeat(2), stride=(1,), padding=(1,)
        )  # (N, 2·O, H)
        y = self.ops.reshape(y, [0, 2, channels, -1], special_zero=True)
        y = self.ops.transpose(y, [0, 2, 3, 1])
        return self.ops.reshape(y, [0, channels, -1], special_zero=True)

    def constant(self, tensor: Tensor) -> Any:
        return self.ops.constant(tensor.detach().contiguous().numpy())
