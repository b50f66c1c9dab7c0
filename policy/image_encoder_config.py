"""What a camera's picture becomes, as data in the header of a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WIDEST = 1024


@dataclass(frozen=True)
class ImageEncoderConfig:
    """A ResNet-18 and what it makes of a picture; see `ImageEncoders`.

    Attributes:
        width: channels of the first stage, a multiple of 16; those after it double it. 64 is the published network.
        features: numbers that a picture becomes: x and y of half as many keypoints, mixed by a linear layer.
        crop: share of each side that the network sees: somewhere in training, in the middle in use.
        shared: whether all cameras have the same network; else each has its own.

    Raises:
        ValueError: for a width or features that the network cannot be built with, or a crop outside 0 … 1.
    """

    width: int = 64
    features: int = 64
    crop: float = 0.875
    shared: bool = False

    def __post_init__(self) -> None:
        for name, largest in (("width", WIDEST), ("features", WIDEST)):
            check_whole(f"image_encoder.{name}", getattr(self, name), largest)
        for name, multiple in (("width", 16), ("features", 2)):
            if getattr(self, name) % multiple:
                raise ValueError(
                    f"image_encoder.{name} must be a multiple of {multiple}, got {getattr(self, name)}"
                )
        crop: Any = self.crop
        if isinstance(crop, bool) or not isinstance(crop, int | float) or not math.isfinite(crop):
            raise ValueError(f"image_encoder.crop must be a number, got {crop!r}")
        if not 0.1 <= crop <= 1:
            raise ValueError(f"image_encoder.crop must be in 0.1 … 1, got {crop}")
        if not isinstance(self.shared, bool):
            raise ValueError(f"image_encoder.shared must be true or false, got {self.shared!r}")

    def cropped(self, side: int) -> int:
        """The px of a side that the network sees."""
        return max(1, round(self.crop * side))


def check_whole(name: str, value: Any, largest: int) -> None:
    """Raise ValueError for what is no whole number in 1 … largest."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    if value > largest:
        raise ValueError(f"{name} must be at most {largest}, got {value}")
