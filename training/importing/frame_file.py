"""Frames of a camera that wait in a temporary file until it is known which of them are seen at a control step."""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO

import numpy as np

from policy.robot.pictures import Picture, resize_picture


class FrameFile:
    """Frames in the size of their part, by their number. The file is in the system's folder of temporary files.

    Args:
        size: height and width in px.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._height, self._width = size
        self._bytes = 3 * self._height * self._width
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        self.count = 0

    def __enter__(self) -> FrameFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, frame: Picture) -> int:
        """Add a frame (h, w, 3) of any size; its number."""
        resized = resize_picture(frame, height=self._height, width=self._width)
        self._file.seek(self.count * self._bytes)
        self._file.write(resized.data)
        self.count += 1
        return self.count - 1

    def frame(self, number: int) -> Picture:
        """A frame (height, width, 3)."""
        self._file.seek(number * self._bytes)
        content = self._file.read(self._bytes)
        return np.frombuffer(content, np.uint8).reshape(self._height, self._width, 3)
