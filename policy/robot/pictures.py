"""From a camera's messages to the pictures of an observation. Knows no ROS.

The policy node, the recorder and all importers call these functions. So a policy is shown what it was trained on.
"""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from policy.robot.description import RobotError, Source
from policy.robot.message_types import Message
from policy.robot.messages import check_frame, message_stamp_ns
from policy.robot.observation_history import RejectedObservation

Picture = NDArray[np.uint8]

FORWARDS, BACKWARDS = slice(0, 3), slice(2, None, -1)
ENCODINGS = {
    "rgb8": (3, FORWARDS),
    "bgr8": (3, BACKWARDS),
    "rgba8": (4, FORWARDS),
    "bgra8": (4, BACKWARDS),
    "mono8": (1, FORWARDS),
}
"""By the encoding of `sensor_msgs/Image`: bytes of a pixel, and where red, green and blue are (all three in mono)."""

COMPRESSED = ("JPEG", "PNG")
EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Pillow's modes that lose nothing as 8-bit red, green and blue."""

MOST_PIXELS = 1 << 24
"""Of a picture: 4096 × 4096. More is refused before it is decoded."""

MOST_PICTURE_BYTES = 4 * MOST_PIXELS + (64 << 10)
"""Of a serialised message with a picture."""

BLACK = 8
"""A picture none of whose numbers is above this, of 255, shows nothing."""


def resize_picture(picture: Picture, *, height: int, width: int) -> Picture:
    """A picture (h, w, 3) as (height, width, 3): bilinear, antialiased, the aspect ratio is not kept.

    One that has the size already stays as it is, to the last bit.
    """
    if picture.shape[:2] == (height, width):
        return np.ascontiguousarray(picture)
    import torch  # not above: a recorder, which resizes nothing, does without

    pixels = torch.from_numpy(np.array(picture, order="C")).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def message_picture(message: Message) -> Picture:
    """The picture (h, w, 3) RGB of a `sensor_msgs/Image` or a `sensor_msgs/CompressedImage`.

    Raises:
        RejectedObservation: `encoding` for one that is not known, `size` for no pixels or too many, `bytes` for too few
            of them, `undecodable` for a damaged JPEG or PNG, or one of another format.
    """
    if hasattr(message, "encoding"):
        return _raw(message)
    return decode_picture(memoryview(message.data))


def decode_picture(content: bytes | memoryview) -> Picture:
    """A JPEG or PNG as (h, w, 3) RGB; transparency is left out.

    Raises:
        RejectedObservation: `size` or `undecodable`. Nothing larger than `MOST_PIXELS` is decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=COMPRESSED) as image:
            _check_size(image.height, image.width)
            if image.mode not in EIGHT_BITS:
                raise RejectedObservation(
                    "undecodable", f"a {image.format} of mode {image.mode}, need 8 bits a channel"
                )
            return np.array(image.convert("RGB"))
    except RejectedObservation:
        raise
    except Exception as error:  # what Pillow raises for damaged files has no common type
        said = " ".join(f"{error}".split())[:100]
        raise RejectedObservation(
            "undecodable", f"{len(content)} bytes are no {' or '.join(COMPRESSED)}: {said}"
        ) from None


def check_decoder(source: Source) -> None:
    """Check that a source's pictures can be decoded here.

    Raises:
        RobotError: naming what is missing.
    """
    if source.type == "sensor_msgs/CompressedImage" and find_spec("PIL") is None:
        raise RobotError(f"{source.name}.type {source.type} needs Pillow: pip install 'pcm_policy[camera]'")


def camera_measurement(
    message: Message, source: Source, *, frozen: FrozenCheck, now_ns: int
) -> tuple[int, Picture]:
    """When a camera's message was taken, in ns, and its picture (h, w, 3), in its own size.

    Args:
        message: of the source's type.
        frozen: knows the messages before it.
        now_ns: when it arrived.

    Raises:
        RejectedObservation: `frame`, `time`, `black`, `frozen`, or as `message_picture` says.
    """
    check_frame(message, source.frame_id)
    stamp = message_stamp_ns(message, now_ns)
    picture = message_picture(message)
    if (brightest := int(picture.max())) <= BLACK:
        raise RejectedObservation("black", f"nothing is brighter than {brightest} of 255")
    frozen.check(message, stamp)
    return stamp, picture


class FrozenCheck:
    """Tells a frozen camera: one that sends the same bytes, and nothing else, for longer than its source's max_age.

    After a pause of that length, or a step back in time, it looks anew.
    """

    def __init__(self, source: Source) -> None:
        self._applies = source.same_pictures == "refuse"
        self._max_age_ns = round(source.max_age * 1e9)
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._content: NDArray[np.uint8] | None = None
        self._since_ns = 0
        self._newest_ns = 0

    def check(self, message: Message, stamp_ns: int) -> None:
        """Take note of a message.

        Raises:
            RejectedObservation: `frozen`.
        """
        if not self._applies:
            return
        content = np.frombuffer(message.data, np.uint8)
        goes_on = self._content is not None and 0 <= stamp_ns - self._newest_ns <= self._max_age_ns
        self._newest_ns = stamp_ns
        if not goes_on or not np.array_equal(content, _of(self._content)):
            self._content, self._since_ns = content, stamp_ns
            return
        frozen_ns = stamp_ns - self._since_ns
        if frozen_ns > self._max_age_ns:
            raise RejectedObservation(
                "frozen",
                f"the same picture for {frozen_ns / 1e9:.2f} s, max_age is {self._max_age_ns / 1e9:.2f} s "
                "(same_pictures: allow takes it nevertheless)",
            )


def _of(content: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    assert content is not None
    return content


def _raw(message: Message) -> Picture:
    encoding = message.encoding
    if encoding not in ENCODINGS:
        raise RejectedObservation("encoding", f"{encoding!r:.40}, need one of {', '.join(ENCODINGS)}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    _check_size(height, width)
    depth, colours = ENCODINGS[encoding]
    if step < width * depth:
        raise RejectedObservation(
            "bytes", f"rows of {step} bytes, {width} pixels of {encoding} need {width * depth}"
        )
    content = np.frombuffer(message.data, np.uint8)
    if content.size < height * step:
        raise RejectedObservation(
            "bytes", f"{content.size} bytes, {height} rows of {step} need {height * step}"
        )
    rows = content[: height * step].reshape(height, step)[:, : width * depth]
    pixels = rows.reshape(height, width, depth)[..., colours]
    return np.broadcast_to(pixels, (height, width, 3))


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MOST_PIXELS:
        raise RejectedObservation("size", f"{height}×{width} px, must be 1 … {MOST_PIXELS}")
