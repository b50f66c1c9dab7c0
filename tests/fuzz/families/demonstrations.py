"""Stores of demonstrations: folders and zip files of zarr 2 and 3, with several codecs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome, try_to
from tests.fuzz.store_faults import inject_store_fault
from training.data.demonstrations import DemonstrationError, Demonstrations, load_demonstrations
from training.data.store_arrays import read_store

ENDS = np.array([8, 20, 41])
COLUMNS = {"state": (5,), "action": (2,), "keypoint": (9, 2)}
IS_ZARR_3 = not zarr.__version__.startswith("2.")


def small_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {
        f"data/{name}": rng.uniform(50, 450, (ENDS[-1], *columns)).astype(np.float32)
        for name, columns in COLUMNS.items()
    }
    return {**arrays, "meta/episode_ends": ENDS}


def write_store(path: Path, **options: Any) -> Path:
    """A store of three short episodes; options as of zarr's groups and arrays."""
    group_options = {"zarr_format": options.pop("zarr_format")} if "zarr_format" in options else {}
    group: Any = zarr.open_group(str(path), mode="w", **group_options)
    group.attrs["task"] = "pusht"
    write_array = group.create_array if IS_ZARR_3 else group.array
    for name, values in small_arrays().items():
        shards = {"shards": values.shape} if options.get("sharded") and values.ndim > 1 else {}
        chunks = values.shape if shards else (10, *values.shape[1:])
        rest = {key: value for key, value in options.items() if key != "sharded"}
        write_array(name, data=values, chunks=chunks, **shards, **rest)
    return path


def _stores(folder: Path) -> list[Path]:
    stores = []
    for name, codec in {
        "blosc": numcodecs.Blosc(),
        "zstd": numcodecs.Zstd(),
        "zlib": numcodecs.Zlib(),
        "lz4": numcodecs.LZ4(),
        "raw": None,
    }.items():
        if IS_ZARR_3:
            stores.append(write_store(folder / f"v2_{name}.zarr", zarr_format=2, compressors=codec))
        else:
            stores.append(write_store(folder / f"v2_{name}.zarr", compressor=codec))
    if IS_ZARR_3:
        stores.append(write_store(folder / "v3_zstd.zarr", zarr_format=3))
        stores.append(write_store(folder / "v3_sharded.zarr", zarr_format=3, sharded=True))
        stores.append(
            write_store(
                folder / "v3_blosc.zarr",
                zarr_format=3,
                compressors=zarr.codecs.BloscCodec(cname="lz4"),
            )
        )
    return [*stores, *(Path(shutil.make_archive(str(store), "zip", store)) for store in stores[::2])]


def prepare(folder: Path) -> Inject:
    stores = _stores(folder)
    good_sha256 = load_demonstrations(stores[0]).sha256
    for store in stores:
        assert load_demonstrations(store).sha256 == good_sha256

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        good = stores[rng.integers(len(stores))]
        path = case / f"store{good.suffix}"
        text = inject_store_fault(rng, good, path)
        return Fault(f"{good.name}, {text}", lambda: _load(path, good_sha256))

    return inject


def _load(path: Path, good_sha256: str) -> Outcome:
    def load() -> None:
        _check(path, load_demonstrations(path), good_sha256)

    return try_to(load, errors=DemonstrationError, naming=str(path))


def _check(path: Path, read: Demonstrations, good_sha256: str) -> None:
    """Whatever is read must be whole, finite, and have another hash than the good store if it is something else.

    The format has no hash of its own. So a number that was changed can be seen only by the hash, which every
    training keeps.
    """
    arrays = small_arrays()
    states, keypoints = arrays["data/state"], arrays["data/keypoint"]
    expected = (
        np.concatenate([keypoints.reshape(-1, 18), states[:, :2]], axis=1),
        arrays["data/action"],
        ENDS,
    )
    found = (read.observations, read.actions, read.episode_ends)
    is_same = all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    # The hash is that of whole arrays, of which the task may leave out some columns.
    stored = read_store(path, lambda attributes: dict.fromkeys(arrays)).arrays
    is_whole = is_same and all(np.array_equal(stored[name], values) for name, values in arrays.items())
    if is_whole != (read.sha256 == good_sha256):
        raise Mishandled(f"values {'as' if is_whole else 'other than'} saved, but sha256 {read.sha256[:12]}…")
    steps = len(read.observations)
    shapes = [(steps, 20), (steps, 2)]
    for values, shape in zip(found, shapes, strict=False):
        if values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
            raise Mishandled(f"accepts values of shape {values.shape} and type {values.dtype}")
    if read.episode_ends[-1] != steps or (np.diff(read.episode_ends, prepend=0) <= 0).any():
        raise Mishandled(f"accepts episodes that end at {read.episode_ends}")


DEMONSTRATIONS = Family("demonstrations", 0.25, prepare, most_seconds=2.0)
