"""Pictures of one camera in a file, one after the other, until their number is known and the store can be written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from policy.task import ImagePart
from training.data.store_files import StoreError

Picture = NDArray[np.uint8]


class PictureFile:
    """The pictures of all episodes so far. What is behind those of the last whole episode is overwritten.

    Args:
        folder: where the file is, or shall be.
        image: the part of the task.
    """

    def __init__(self, folder: Path, image: ImagePart) -> None:
        self._path = folder / f"{image.name}.u8"
        self._shape = (image.height, image.width, 3)
        self._path.touch()
        self._file: IO[bytes] = open(self._path, "r+b")  # noqa: SIM115 - closed by `close`

    def append(self, pictures: Iterable[Picture], *, first: int, count: int, where: str) -> None:
        """Add the pictures of an episode.

        Args:
            first: number of pictures of earlier episodes.
            where: for messages: store, episode and part.

        Raises:
            StoreError: for a picture of another shape or type, or more or fewer of them.
        """
        self._file.seek(first * self._bytes)
        added = 0
        for picture in pictures:
            if picture.shape != self._shape or picture.dtype != np.uint8:
                raise StoreError(
                    f"{where}: picture {added} is {picture.dtype} of the shape {picture.shape}, "
                    f"expected uint8 of {self._shape}"
                )
            if added < count:
                self._file.write(np.ascontiguousarray(picture).data)
            added += 1
        if added != count:
            raise StoreError(f"{where} has {added} pictures for {count} steps; each step has one")
        self._file.flush()

    def rows(self, count: int) -> NDArray[np.uint8]:
        """The first so many pictures (count, height, width, 3), as a map of the file."""
        return np.memmap(self._path, np.uint8, "r", shape=(count, *self._shape))

    def close(self) -> None:
        self._file.close()

    @property
    def _bytes(self) -> int:
        return int(np.prod(self._shape))
