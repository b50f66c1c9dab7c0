"""A store zipped as the published demonstrations are, and its download from the server of the tests."""

from __future__ import annotations

import io
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from training.data import download_demonstrations
from training.data.array_hash import array_sha256
from training.data.download_demonstrations import STORE_NAME
from training.output_dir import LOCK

ARRAYS = {
    "data/state": np.arange(200, dtype=np.float32).reshape(40, 5),
    "data/action": np.arange(1, 81, dtype=np.float32).reshape(40, 2),
    "data/keypoint": np.arange(2, 722, dtype=np.float32).reshape(40, 9, 2),
    "meta/episode_ends": np.array([15, 40]),
}
ROOT = f"pusht/{STORE_NAME}"  # in an archive
EXPECTED = {name: array_sha256(values) for name, values in ARRAYS.items()}


def write_store(path: Path, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    group = zarr.open_group(str(path), mode="w")
    for name, values in arrays.items():
        group[name] = values
    return path


def archive_of(store: Path, extra_members: dict[str, bytes] | None = None) -> bytes:
    """The store zipped as in the published archive, in a folder of its own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(store.rglob("*")):
            archive.write(file, f"pusht/{STORE_NAME}/{file.relative_to(store).as_posix()}")
        for name, content in (extra_members or {}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """The operating system refuses to let a file grow beyond this, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def download(url: str, output_dir: Path, expected: dict[str, str]) -> Path:
    """From the server of these tests, which speaks http."""
    return download_demonstrations.download(url, output_dir, expected, allow_http=True)


def contents(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK)
