"""Pictures in HDF5 files, a block at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from policy.robot.pictures import Picture, resize_picture
from policy.task_parts import LONGEST_SIDE
from training.importing.recording import EpisodeError, RecordingError, count_frames, one_line

BLOCK_PICTURES = 16
# What h5py raises for damaged files, besides OSError: errors of its C library under many names.
DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A file. Raises RecordingError for one that is missing or damaged."""
    if not path.is_file():
        raise RecordingError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except DAMAGED as error:
        raise RecordingError(f"{path}: not a whole HDF5 file: {one_line(error)}") from error
    with file:
        yield file


def is_picture(dataset: Any) -> bool:
    """Whether a dataset is pictures (n, h, w, 3) of 8 bits."""
    return bool(
        isinstance(dataset, h5py.Dataset)
        and dataset.dtype == np.uint8
        and dataset.ndim == 4
        and dataset.shape[3] == 3
        and all(1 <= side <= LONGEST_SIDE for side in dataset.shape[1:3])
    )


def pictures(
    path: Path, key: str, *, size: tuple[int, int], steps: int, counter: Counter[str]
) -> Iterator[Picture]:
    """The pictures of an episode, as (height, width), a block at a time."""
    try:
        with opened(path) as file:
            dataset = file[key]
            for start in range(0, steps, BLOCK_PICTURES):
                for picture in dataset[start : start + BLOCK_PICTURES]:
                    yield resize_picture(picture, height=size[0], width=size[1])
    except (RecordingError, *DAMAGED) as error:
        raise EpisodeError(f"{path}: {key} cannot be read: {one_line(error)}") from error
    count_frames(counter, range(steps), read=steps)
