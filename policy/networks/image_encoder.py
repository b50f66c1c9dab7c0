"""What a policy sees of its cameras: each picture as a few features (Diffusion Policy, Chi et al. 2023, sec. 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from policy.image_encoder_config import ImageEncoderConfig
from policy.networks.resnet import ResNet18
from policy.task_parts import ImagePart

# Of ImageNet's pictures, which published weights expect; of values 0 … 255.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class SpatialSoftmax(nn.Module):
    """Feature maps (B, C, H, W) → where each of K keypoints is, (B, 2·K) in −1 … 1 (Finn et al. 2016, section V).

    A keypoint is the mean place under the softmax of its map, x before y.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)

    def forward(self, features: Tensor) -> Tensor:
        maps = self.maps(features.float())
        places = keypoint_places(*maps.shape[-2:]).to(maps)
        return (maps.flatten(2).softmax(-1) @ places).flatten(1)


def keypoint_places(height: int, width: int) -> Tensor:
    """x and y in −1 … 1 of each number of a feature map, (height·width, 2); 0 along a side of one."""
    y, x = (torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1) for side in (height, width))
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), -1)


class ImageEncoder(nn.Module):
    """Cropped pictures (B, H, W, 3) of 0 … 255 → features (B, F).

    Under autocast the ResNet alone is computed in low precision: bfloat16 would round a place to 1/256 of a side.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.resnet = ResNet18(config.width)
        self.keypoints = SpatialSoftmax(self.resnet.channels, config.features // 2)
        self.mix = nn.Linear(config.features, config.features)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        scaled = (pictures.permute(0, 3, 1, 2) - self.mean) / self.deviation
        maps = self.resnet(scaled)
        with torch.autocast(maps.device.type, enabled=False):
            features: Tensor = self.mix(self.keypoints(maps))
        return features


class ImageEncoders(nn.Module):
    """The encoders of a task's cameras.

    Args:
        parts: the task's pictures.
        config: of each encoder.
    """

    def __init__(self, parts: tuple[ImagePart, ...], config: ImageEncoderConfig) -> None:
        super().__init__()
        self.parts, self.config = parts, config
        names = ["shared"] if config.shared else [_module_name(part.name) for part in parts]
        self.encoders = nn.ModuleDict({name: ImageEncoder(config) for name in names})

    def encoder(self, name: str) -> ImageEncoder:
        """The encoder of a camera."""
        encoder = self.encoders["shared" if self.config.shared else _module_name(name)]
        assert isinstance(encoder, ImageEncoder)
        return encoder

    def forward(self, pictures: Mapping[str, Tensor], places: Mapping[str, Tensor] | None = None) -> Tensor:
        """Features (B, F), in the order of the task's pictures.

        Args:
            pictures: (B, height, width, 3) uint8 of each part, by its name.
            places: (B, 2) in 0 … 1 of each part: where the crop is, from top to bottom and from left to right; by
                default in the middle.
        """
        features = []
        for part in self.parts:
            size = (self.config.cropped(part.height), self.config.cropped(part.width))
            place = None if places is None else places[part.name]
            features.append(self.encoder(part.name)(cropped(pictures[part.name], size, place)))
        return torch.cat(features, -1)

    def check(self, pictures: Mapping[str, Tensor]) -> None:
        """Raise ValueError, naming the part, for pictures that are missing, too many or not as the task says."""
        wanted = [part.name for part in self.parts]
        if set(pictures) != set(wanted):
            raise ValueError(
                f"pictures are of {', '.join(pictures) or 'none'}, needed of {', '.join(wanted)}"
            )
        count = len(pictures[wanted[0]])
        for part in self.parts:
            given = pictures[part.name]
            if given.dtype != torch.uint8:
                raise ValueError(
                    f"pictures of {part.name} must be uint8, got {str(given.dtype).split('.')[-1]}"
                )
            if given.ndim != 4 or tuple(given.shape[1:]) != part.shape:
                need = ", ".join(map(str, part.shape))
                raise ValueError(f"pictures of {part.name} must be (B, {need}), got {tuple(given.shape)}")
            if len(given) != count:
                raise ValueError(
                    f"pictures of {part.name} are {len(given)}, those of {wanted[0]} are {count}"
                )


def cropped(pictures: Tensor, size: tuple[int, int], places: Tensor | None = None) -> Tensor:
    """A part (B, h, w, 3) of each picture (B, H, W, 3).

    Args:
        size: h, w.
        places: (B, 2) in 0 … 1, from top to bottom and from left to right; by default in the middle of all.
    """
    room = (pictures.shape[1] - size[0], pictures.shape[2] - size[1])
    if places is None:
        top, left = room[0] // 2, room[1] // 2
        return pictures[:, top : top + size[0], left : left + size[1]]
    first = [(places[:, axis] * (room[axis] + 1)).long().clamp(max=room[axis]) for axis in (0, 1)]
    rows, columns = (
        start[:, None] + torch.arange(length, device=pictures.device)
        for start, length in zip(first, size, strict=True)
    )
    batch = torch.arange(len(pictures), device=pictures.device)
    return pictures[batch[:, None, None], rows[:, :, None], columns[:, None, :]]


def _module_name(part: str) -> str:
    """A module must not be named as an attribute of all modules, such as ``type``."""
    return f"of_{part}"
