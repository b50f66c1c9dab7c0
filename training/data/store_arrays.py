"""Arrays and attributes of a zarr store, read whole and checked, and its pictures.

Nothing is decoded of a store that `check_store` refuses.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import zarr

from training.data.bounded_zip import open_zip
from training.data.pictures import Pictures, unpack_pictures
from training.data.store_check import check_store
from training.data.store_files import FolderFiles, StoreError, StoreFiles, ZipFiles, folder_store, open_group

EPISODE_ENDS = "meta/episode_ends"
ROOT_ALONE: tuple[str, ...] = ()  # arrays to check before the root's attributes have said what is read
LONGEST_REASON = 500  # letters: some errors quote what the file holds

RowShape: TypeAlias = tuple[int, ...] | None
"""Shape of one row of an array; None for any."""

Wanted: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, RowShape]]
"""Attributes of a store → the arrays to read of it, and the shapes of their rows. Raises StoreError."""


@dataclass(frozen=True)
class StoreContent:
    """What was read of a store."""

    attributes: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def read_store(path: Path, wanted: Wanted) -> StoreContent:
    """Read a store: a zarr folder or a `.zarr.zip`, of zarr format 2 or 3.

    Raises:
        StoreError: if there is no such store, `check_store` refuses it, or an array is missing, empty, of another shape
            or cannot be decoded. The message names the store and the array.
    """
    with _opened(path) as (group, files, attributes):
        shapes = wanted(attributes)
        check_store(files, shapes)
        arrays = {name: _open_array(path, group, name, row_shape=shape) for name, shape in shapes.items()}
        decoded = {name: np.concatenate(list(_decode(path, name, array))) for name, array in arrays.items()}
        return StoreContent(attributes, decoded)


def read_pictures(
    path: Path, shapes: Mapping[str, tuple[int, int, int]], *, folder: Path | None
) -> dict[str, Pictures]:
    """Pictures of a store, unpacked into files without a name. Memory holds a chunk.

    Args:
        path: of the store.
        shapes: height, width, 3 of a picture, by the array's name.
        folder: where the files are, see `unpack_pictures`.

    Raises:
        StoreError: as `read_store`, or for values that are no pictures.
    """
    with _opened(path) as (group, files, _):
        check_store(files, shapes)
        arrays = {name: _open_array(path, group, name, row_shape=shape) for name, shape in shapes.items()}
        return {
            name: unpack_pictures(
                _decode(path, name, array), array.shape, folder=folder, where=f"{path}: array {name}"
            )
            for name, array in arrays.items()
        }


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, StoreFiles, dict[str, Any]]]:
    """Root group, files and attributes of a store."""
    try:
        if not path.exists():
            raise StoreError(f"{path}: no such file or folder")
        if path.is_dir():
            folder = FolderFiles(path)
            check_store(folder, ROOT_ALONE)
            yield _root(path, folder_store(path, read_only=True), folder)
            return
        with open_zip(path) as opened:
            files = ZipFiles(path, opened)
            # Before zarr has it: zarr-python 3 cannot close a zip file that it has not begun to read.
            check_store(files, ROOT_ALONE)
            with closing(zarr.storage.ZipStore(str(path), mode="r")) as store:
                yield _root(path, store, files)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error
    except zipfile.BadZipFile as error:
        raise StoreError(
            f"{path}: not a zarr store (neither a folder nor a whole zip file): {one_line(error)}"
        ) from error


def as_finite_float32(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """Raises StoreError for values that are not numbers, or not finite in float32."""
    if values.dtype.kind not in "fiu":
        raise StoreError(f"{path}: array {name} holds {values.dtype}, expected numbers")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        index = tuple(bad[0].tolist())
        raise StoreError(f"{path}: array {name} is {values[index]} at index {index}, expected finite values")
    return values


def as_episode_ends(path: Path, values: np.ndarray, num_steps: int) -> np.ndarray:
    """Raises StoreError unless the episodes tile the steps."""
    name = EPISODE_ENDS
    if values.dtype.kind not in "iu":
        raise StoreError(f"{path}: array {name} holds {values.dtype}, expected integers")
    ends = values.astype(np.int64)
    not_increasing = np.flatnonzero(np.diff(ends, prepend=0) <= 0)
    if not_increasing.size:
        index = int(not_increasing[0])
        before = ends[index - 1] if index else 0
        raise StoreError(
            f"{path}: array {name} does not increase at index {index}: {ends[index]} after {before}"
        )
    past_end = np.flatnonzero(ends > num_steps)
    if past_end.size or ends[-1] < num_steps:
        index = int(past_end[0]) if past_end.size else len(ends) - 1
        side = "past" if past_end.size else "short of"
        raise StoreError(
            f"{path}: array {name} is {ends[index]} at index {index}, {side} the {num_steps} steps recorded"
        )
    return ends


def one_line(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}…"


def _root(path: Path, store: Any, files: StoreFiles) -> tuple[Any, StoreFiles, dict[str, Any]]:
    # zarr-python 2 and 3 and their codecs raise errors of many unrelated types, hence `Exception` below.
    try:
        group = open_group(store, mode="r")
        return group, files, dict(group.attrs)
    except Exception as error:
        hint = ""
        if zarr.__version__.startswith("2."):
            hint = f" (zarr format 3 needs zarr-python 3; this is {zarr.__version__})"
        raise StoreError(f"{path}: not a zarr store: no readable group at its root{hint}") from error


def _open_array(path: Path, group: Any, name: str, *, row_shape: RowShape) -> Any:
    try:
        array = group[name]
    except KeyError as error:
        raise StoreError(f"{path}: array {name} is missing") from error
    except Exception as error:
        raise StoreError(f"{path}: array {name} cannot be opened: {one_line(error)}") from error
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{path}: {name} is a group, not an array")
    if not array.shape or (row_shape is not None and array.shape[1:] != row_shape):
        wanted = "(N, …)" if row_shape is None else str(("N", *row_shape)).replace("'", "")
        raise StoreError(f"{path}: array {name} has shape {array.shape}, expected {wanted}")
    if 0 in array.shape:
        raise StoreError(f"{path}: array {name} is empty")
    return array


def _decode(path: Path, name: str, array: Any) -> Iterator[np.ndarray]:
    """The values of an array, chunk after chunk of rows."""
    # zarr reads a missing chunk as its fill value: a half-copied store would train on zeros.
    try:
        present, total = array.nchunks_initialized, array.nchunks
    except Exception as error:  # names in a damaged zip file, for instance
        raise StoreError(f"{path}: array {name} cannot be decoded: {one_line(error)}") from error
    if present < total:
        raise StoreError(f"{path}: array {name} has only {present} of its {total} chunks")
    rows = array.chunks[0]
    for start in range(0, array.shape[0], rows):
        try:
            decoded = np.asarray(array[start : start + rows])
        except Exception as error:
            raise StoreError(
                f"{path}: array {name} cannot be decoded, in the chunk from index {start}: {one_line(error)}"
            ) from error
        yield decoded
