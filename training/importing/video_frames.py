"""Frames of a video at given times, decoded one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from policy.robot.pictures import MOST_PIXELS, Picture
from training.importing.recording import count_frames, one_line

ROUNDING = 1e-4
"""Of times in tables, in s."""


class VideoError(ValueError):
    """A video that cannot be read. The message lacks the file."""


def frames_at(
    path: Path, times: NDArray[np.float64], *, tolerance: float, counter: Counter[str]
) -> Iterator[Picture]:
    """The frame (h, w, 3) that is nearest to each time, the earlier of two that are equally near.

    Args:
        times: (n,) increasing, in s since the video's beginning.
        tolerance: how far a frame may be from its time, in s.
        counter: where the frames around these times are counted, see `count_frames`.

    Raises:
        VideoError: for a file that is missing, damaged, too large, or has no frame near a time.
    """
    numbers: list[int] = []
    read = 0
    try:
        with av.open(str(path)) as container:
            frames = _frames(container, start=float(times[0]) - tolerance / 2)
            current = next(frames, None)
            following = next(frames, None)
            shown: tuple[int, Picture] | None = None
            for row, time in enumerate(times.tolist()):
                while following is not None and _is_nearer(following, current, time):
                    current, following = following, next(frames, None)
                    read += 1
                if current is None or abs(current.time - time) > tolerance + ROUNDING:
                    raise VideoError(f"no frame within {tolerance:.3g} s of {time:.3f} s, of row {row}")
                if shown is None or shown[0] != read:
                    shown = read, current.to_ndarray(format="rgb24")
                numbers.append(read)
                yield shown[1]
    except VideoError:
        raise
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except (OSError, ValueError, ArithmeticError) as error:  # of FFmpeg, under many names
        raise VideoError(f"cannot be decoded: {one_line(error)}") from error
    count_frames(counter, numbers, read=read + 1)


def _is_nearer(one: Any, other: Any, time: float) -> bool:
    return bool(abs(one.time - time) < abs(other.time - time) - ROUNDING)


def _frames(container: Any, *, start: float) -> Iterator[Any]:
    """The frames from a time on, in s, each with its `time`."""
    streams = container.streams.video
    if not streams:
        raise VideoError("has no pictures")
    stream = streams[0]
    pixels = stream.codec_context.height * stream.codec_context.width
    if not 0 < pixels <= MOST_PIXELS:
        raise VideoError(f"has {pixels} px a frame, allowed are 1 … {MOST_PIXELS}")
    if start > 0:
        container.seek(int(start / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        if frame.time is None:
            raise VideoError("has a frame without a time")
        if frame.time >= start:
            yield frame
