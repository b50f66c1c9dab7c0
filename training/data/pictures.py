"""Pictures of demonstrations, on disk: a file of whole pictures, uint8, from which any of them is read at once.

Memory holds one chunk of the store while the file is made, and what is asked for afterwards, whatever the store's size.
The file has no name: it is gone with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from training.data.store_files import StoreError


class Pictures:
    """Pictures (N, height, width, 3) uint8 of all steps.

    Attributes:
        shape: N, height, width, 3.
        sha256: hash of their values.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, int, int, int], sha256: str) -> None:
        self.shape, self.sha256 = shape, sha256
        self._file = file
        weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The pictures (n, height, width, 3) of steps (n,). Threads may read at the same time."""
        pictures = np.empty((len(steps), *self.shape[1:]), np.uint8)
        for picture, step in zip(pictures, steps.tolist(), strict=True):
            place = step * picture.nbytes
            if os.preadv(self._file.fileno(), [picture.data], place) != picture.nbytes:
                raise OSError(f"pictures end at step {step}, there must be {len(self)}")
        return pictures


def unpack_pictures(
    blocks: Iterable[NDArray[np.generic]],
    shape: tuple[int, ...],
    *,
    folder: Path | None,
    where: str,
) -> Pictures:
    """Write pictures into a file without a name.

    Args:
        blocks: pictures (n, height, width, 3), one block after the other: uint8, or whole numbers of 0 … 255.
        shape: N, height, width, 3.
        folder: where the file is, or above it where there is no such folder yet; None for the system's folder of
            temporary files.
        where: store and array, for messages.

    Raises:
        StoreError: for other values, or a disk that is too small.
    """
    count, height, width, channels = shape
    folder = Path(tempfile.gettempdir()) if folder is None else folder.absolute()
    folder = next(existing for existing in (folder, *folder.parents) if existing.is_dir())
    needed, free = count * height * width * channels, shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(f"{where} needs {needed} bytes in {folder} while it is used, {free} are free")
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as the pictures
    digest = hashlib.sha256(f"|u1 {shape} ".encode())
    start = 0
    for block in blocks:
        values = np.ascontiguousarray(_as_uint8(block, start, where=where))
        file.write(values.data)
        digest.update(values.data)
        start += len(values)
    file.flush()
    return Pictures(file, (count, height, width, channels), digest.hexdigest())


def _as_uint8(block: NDArray[np.generic], start: int, *, where: str) -> NDArray[np.uint8]:
    if block.dtype == np.uint8:
        return block.view(np.uint8)
    if block.dtype.kind not in "fiu":
        raise StoreError(f"{where} holds {block.dtype}, expected uint8, or whole numbers of 0 to 255")
    with np.errstate(invalid="ignore"):
        values = block.astype(np.uint8)
    bad = np.argwhere(values != block)
    if len(bad):
        step, *place = (int(index) for index in bad[0])
        raise StoreError(
            f"{where} is {block[(step, *place)]} at index {(start + step, *place)}, expected uint8, or whole numbers "
            "of 0 to 255"
        )
    return values
