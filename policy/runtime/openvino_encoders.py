"""The encoders of pictures through OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from policy.networks.image_encoder import ImageEncoder, ImageEncoders, keypoint_places
from policy.networks.resnet import STAGES
from policy.runtime.engine import EngineError, require_library
from policy.task_parts import ImagePart


def openvino_encoders(encoders: ImageEncoders, threads: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Pictures (B, height, width, 3) by the part's name → features (B, F), as `ImageEncoders` in use.

    A picture at a time, as they arrive.

    Raises:
        EngineError: for weights that are not float32 on the CPU.
    """
    openvino = require_library("openvino", "openvino")
    weight = next(encoders.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise EngineError(
            f"engine 'openvino' needs float32 on the CPU, got {weight.dtype} on {weight.device}"
        )
    core = openvino.Core()
    options = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # otherwise bfloat16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # other processes use the cores too
    }
    requests = {}
    for part in encoders.parts:
        model = _Graph(openvino).build(part, encoders)
        requests[part.name] = core.compile_model(model, "CPU", options).create_infer_request()

    def features_of(part: ImagePart, pictures: Tensor) -> Tensor:
        request = requests[part.name]
        found = []
        for picture in pictures.cpu().contiguous().numpy():
            request.infer({0: picture[None]})
            found.append(torch.from_numpy(request.get_output_tensor(0).data.copy()))
        return torch.cat(found)

    def encode(pictures: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([features_of(part, pictures[part.name]) for part in encoders.parts], -1)

    return encode


class _Graph:
    """`ImageEncoder` in OpenVINO's operations. Tracing it would take seconds."""

    def __init__(self, openvino: Any) -> None:
        self.ops, self.model = openvino.opset15, openvino.Model

    def build(self, part: ImagePart, encoders: ImageEncoders) -> Any:
        """Model with the input (1, height, width, 3) uint8 and the output (1, F)."""
        ops, encoder = self.ops, encoders.encoder(part.name)
        height, width = (encoders.config.cropped(side) for side in (part.height, part.width))
        top, left = (part.height - height) // 2, (part.width - width) // 2
        picture = ops.parameter([1, *part.shape], np.uint8)
        x = ops.slice(picture, [0, top, left, 0], [1, top + height, left + width, 3], [1, 1, 1, 1])
        x = ops.transpose(ops.convert(x, np.float32), [0, 3, 1, 2])
        x = ops.divide(ops.subtract(x, self.constant(encoder.mean)), self.constant(encoder.deviation))
        return self.model([self.keypoints(self.resnet(x, encoder), encoder)], [picture])

    def resnet(self, x: Any, encoder: ImageEncoder) -> Any:
        ops, network = self.ops, encoder.resnet
        x = ops.relu(self.norm(self.convolution(x, network.conv1), network.bn1))
        x = ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
        for number in range(1, len(STAGES) + 1):
            for block in network.get_submodule(f"layer{number}").children():
                x = self.block(x, block)
        return x

    def block(self, x: Any, block: Any) -> Any:
        ops = self.ops
        hidden = ops.relu(self.norm(self.convolution(x, block.conv1), block.bn1))
        hidden = self.norm(self.convolution(hidden, block.conv2), block.bn2)
        if not isinstance(block.downsample, nn.Identity):
            convolution, norm = block.downsample.children()
            x = self.norm(self.convolution(x, convolution), norm)
        return ops.relu(ops.add(hidden, x))

    def keypoints(self, features: Any, encoder: ImageEncoder) -> Any:
        ops, maps, mix = self.ops, encoder.keypoints.maps, encoder.mix
        assert maps.bias is not None
        x = ops.add(self.convolution(features, maps), self.constant(maps.bias[None, :, None, None]))
        height, width = (
            x.get_output_partial_shape(0)[2].get_length(),
            x.get_output_partial_shape(0)[3].get_length(),
        )
        share = ops.softmax(ops.reshape(x, [1, maps.out_channels, height * width], False), 2)
        places = ops.matmul(share, self.constant(keypoint_places(height, width)), False, False)  # (1, K, 2)
        flat = ops.reshape(places, [1, 2 * maps.out_channels], False)
        return ops.add(
            ops.matmul(flat, self.constant(mix.weight), False, True), self.constant(mix.bias[None])
        )

    def convolution(self, x: Any, layer: nn.Conv2d) -> Any:
        padding = list(layer.padding)
        return self.ops.convolution(
            x, self.constant(layer.weight), list(layer.stride), padding, padding, [1, 1]
        )

    def norm(self, x: Any, layer: nn.GroupNorm) -> Any:
        """GroupNorm, in steps: its own operation in two blocks on end makes OpenVINO 2026.4.1 die as it compiles."""
        ops = self.ops
        channels, height, width = (x.get_output_partial_shape(0)[axis].get_length() for axis in (1, 2, 3))
        groups = [1, layer.num_groups, channels // layer.num_groups * height * width]
        normal = ops.mvn(ops.reshape(x, groups, False), [2], True, layer.eps, "inside_sqrt")
        normal = ops.reshape(normal, [1, channels, height, width], False)
        weight, bias = (self.constant(each[None, :, None, None]) for each in (layer.weight, layer.bias))
        return ops.add(ops.multiply(normal, weight), bias)

    def constant(self, tensor: Tensor) -> Any:
        return self.ops.constant(tensor.detach().contiguous().numpy())
