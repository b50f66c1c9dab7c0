"""Stores of demonstrations that are refused before zarr opens them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data.demonstrations import DemonstrationError, load_demonstrations

ZARR_3 = not zarr.__version__.startswith("2.")
needs_zarr_3 = pytest.mark.skipif(not ZARR_3, reason="zarr format 3 needs zarr-python 3")
STEPS = 20


def write_store(path: Path, zarr_format: int = 2, **options: Any) -> Path:
    if ZARR_3:
        options["zarr_format"] = zarr_format
    shards = {"shards": options.pop("shards")} if "shards" in options else {}
    group: Any = zarr.open_group(str(path), mode="w", **options)
    write_array = group.create_array if ZARR_3 else group.array
    for name, columns in {"state": (5,), "action": (2,), "keypoint": (9, 2)}.items():
        values = np.ones((STEPS, *columns), np.float32)
        sizes = {"shards": (STEPS, *columns)} if shards else {}
        write_array(f"data/{name}", data=values, chunks=(10, *columns), **sizes)
    write_array("meta/episode_ends", data=np.array([8, STEPS]), chunks=(2,))
    return path


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = json.loads(file.read_text())
    change(metadata)
    file.write_text(json.dumps(metadata))


def zipped(path: Path) -> Path:
    return Path(shutil.make_archive(str(path), "zip", path))


class Marker:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refused(path: Path, message: str) -> None:
    """The store is refused with this message, in less than 50 MB; nothing is waited for."""
    tracemalloc.start()
    try:
        with pytest.raises(DemonstrationError, match=message) as raised:
            load_demonstrations(path, task="pusht")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    assert most_bytes < 50e6


@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("role", ["compressor", "filter"])
def test_a_store_that_names_pickle_runs_nothing(tmp_path: Path, role: str, as_zip: bool) -> None:
    path, marker = write_store(tmp_path / "store.zarr"), tmp_path / "marker"
    codec = {"id": "pickle", "protocol": 4}
    changed = {"compressor": codec} if role == "compressor" else {"compressor": None, "filters": [codec]}
    edit(path / "data/action/.zarray", lambda metadata: metadata.update(changed))
    for chunk in ("0.0", "1.0"):
        (path / "data/action" / chunk).write_bytes(pickle.dumps(Marker(marker)))
    refused(
        zipped(path) if as_zip else path,
        rf"array data/action names the {role} pickle, allowed are blosc, .* \(in data/action/\.zarray\)",
    )
    assert not marker.exists()


def test_a_fill_value_that_names_pickle_runs_nothing(tmp_path: Path) -> None:
    path, marker = write_store(tmp_path / "store.zarr"), tmp_path / "marker"
    changed = {"dtype": "|O", "filters": [{"id": "pickle"}], "fill_value": "gASVAAAA"}
    edit(path / "data/action/.zarray", lambda metadata: metadata.update(changed))
    refused(path, r"array data/action holds \|O, expected numbers")
    assert not marker.exists()


@pytest.mark.parametrize("dtype", ["|O", "|V4", [["x", "<f4"]], None, 4])
def test_what_is_no_number_is_refused(tmp_path: Path, dtype: Any) -> None:
    path = write_store(tmp_path / "store.zarr")
    edit(path / "data/state/.zarray", lambda metadata: metadata.update(dtype=dtype))
    refused(path, "array data/state holds .*, expected numbers")


@needs_zarr_3
@pytest.mark.parametrize("as_zip", [False, True])
@pytest.mark.parametrize("codec", [{"name": "numcodecs.pickle"}, "pickle", {"name": 3}, [], None])
def test_unknown_codecs_of_format_3_are_refused(tmp_path: Path, codec: Any, as_zip: bool) -> None:
    path = write_store(tmp_path / "store.zarr", 3)
    edit(path / "data/action/zarr.json", lambda metadata: metadata["codecs"].append(codec))
    refused(zipped(path) if as_zip else path, "array data/action names the codec .*, allowed are blosc")


@needs_zarr_3
@pytest.mark.parametrize("key", ["codecs", "index_codecs"])
def test_codecs_in_a_shard_are_checked(tmp_path: Path, key: str) -> None:
    path = write_store(tmp_path / "store.zarr", 3, shards=True)
    assert len(load_demonstrations(path, task="pusht").actions) == STEPS
    file = path / "data/action/zarr.json"
    edit(file, lambda m: m["codecs"][0]["configuration"][key].append({"name": "numcodecs.pickle"}))
    refused(path, r"array data/action names the codec numcodecs\.pickle")


@needs_zarr_3
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_consolidated_metadata_are_checked_and_not_used(tmp_path: Path, zarr_format: int) -> None:
    path = write_store(tmp_path / "store.zarr", zarr_format)
    zarr.consolidate_metadata(str(path))
    assert len(load_demonstrations(path, task="pusht").actions) == STEPS

    def name_pickle(metadata: dict[str, Any]) -> None:
        if zarr_format == 2:
            metadata["metadata"]["data/action/.zarray"]["compressor"] = {"id": "pickle"}
        else:
            (action,) = [
                member
                for name, member in metadata["consolidated_metadata"]["metadata"].items()
                if name == "data/action"
            ]
            action["codecs"] = [{"name": "numcodecs.pickle"}]

    edit(path / (".zmetadata" if zarr_format == 2 else "zarr.json"), name_pickle)
    refused(path, "array data/action names the co.*pickle, allowed are")


@needs_zarr_3
def test_consolidated_metadata_inside_others_are_checked(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr", 3)
    array = json.loads((path / "data/action/zarr.json").read_text())
    array["codecs"] = [{"name": "pickle"}]
    inner = {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"metadata": {"b": array}}}
    edit(path / "zarr.json", lambda m: m.update(consolidated_metadata={"metadata": {"a": inner}}))
    refused(path, "array a/b names the codec pickle")


SIZES: dict[str, tuple[dict[str, Any], str]] = {
    "2^40 steps": ({"shape": [2**40, 5]}, r"has the shape \[1099511627776, 5\], allowed are sizes of 0 to"),
    "1e9 steps": ({"shape": [10**9, 5]}, r"has the shape \[1000000000, 5\], allowed"),
    "many bytes": ({"shape": [10**6, 10**6]}, r"has the shape .* bytes, allowed are at most"),
    "negative": ({"shape": [-1, 5]}, r"has the shape \[-1, 5\], allowed"),
    "not whole": ({"shape": [20.0, 5]}, r"has the shape \[20.0, 5\], allowed"),
    "true": ({"shape": [True, 5]}, r"has the shape \[True, 5\], allowed"),
    "no list": ({"shape": "many"}, "has the shape many, allowed is a list"),
    "many dimensions": ({"shape": [1] * 5000}, "has the shape .*, allowed are at most 32 integers"),
    "chunks of 0": ({"chunks": [0, 5]}, r"has chunks of \[0, 5\], allowed are sizes of 1 to"),
    "chunks of 4 GB": (
        {"chunks": [10**9, 5]},
        r"has chunks of \[1000000000, 5\], .* bytes, allowed are at most",
    ),
    "numbers of many digits": ({"chunks": [10**4000] * 2}, "has chunks of .*, allowed are sizes of 1 to"),
    "chunks of many GB": (
        {"chunks": [2**40, 5]},
        r"has chunks of \[1099511627776, 5\], allowed are",
    ),
    "fewer dimensions": ({"chunks": [10]}, "has 2 dimensions, but its chunks have 1"),
}


@pytest.mark.parametrize("case", list(SIZES))
@pytest.mark.parametrize("zarr_format", [2, pytest.param(3, marks=needs_zarr_3)])
def test_impossible_sizes_are_refused_before_memory(tmp_path: Path, zarr_format: int, case: str) -> None:
    changed, message = SIZES[case]
    path = write_store(tmp_path / "store.zarr", zarr_format)

    def change(metadata: dict[str, Any]) -> None:
        if zarr_format == 3 and "chunks" in changed:
            metadata["chunk_grid"]["configuration"]["chunk_shape"] = changed["chunks"]
        else:
            metadata.update(changed)

    edit(path / "data/state" / (".zarray" if zarr_format == 2 else "zarr.json"), change)
    refused(path, f"array data/state {message}")


@needs_zarr_3
def test_a_shard_of_too_many_chunks_is_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr", 3, shards=True)

    def change(metadata: dict[str, Any]) -> None:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [5_000_000, 2]
        metadata["codecs"][0]["configuration"]["chunk_shape"] = [1, 1]

    edit(path / "data/action/zarr.json", change)
    refused(path, "array data/action has more than 1048576 chunks in a shard")


BOMBS = {
    "nested lists": b"[" * 500_000,
    "nested objects": b'{"a":' * 100_000,
    "nested shards": b'{"node_type": "group", "consolidated_metadata": {"metadata": {"a": ' * 5_000,
    "long number": b'{"shape": [' + b"9" * 500_000 + b"]}",
    "not UTF-8": b"\xff\xfe{\x00}\x00",
    "list": b"[]",
}


@pytest.mark.parametrize("case", list(BOMBS))
@pytest.mark.parametrize("file", [".zattrs", "data/.zgroup", "data/state/.zarray", "zarr.json"])
def test_metadata_that_are_no_store_are_named(tmp_path: Path, file: str, case: str) -> None:
    path = write_store(tmp_path / "store.zarr")
    (path / file).write_bytes(BOMBS[case])
    refused(path, f"cannot be opened: {file} is not the JSON of a store")


@pytest.mark.parametrize("as_zip", [False, True])
def test_metadata_of_many_bytes_are_refused(tmp_path: Path, as_zip: bool) -> None:
    path = write_store(tmp_path / "store.zarr")
    (path / "data" / ".zattrs").write_bytes(b" " * 100_000_000)
    path = zipped(path) if as_zip else path
    refused(path, r"data/\.zattrs has 100000000 bytes, allowed are at most 1048576")


def linked_to_a_device(path: Path) -> str:
    (path / "data/state/.zarray").unlink()
    (path / "data/state/.zarray").symlink_to("/dev/zero")
    return r"data/state/\.zarray is a link"


def pipe(path: Path) -> str:
    (path / "data/state/.zarray").unlink()
    os.mkfifo(path / "data/state/.zarray")
    return r"data/state/\.zarray is not a regular file"


def pipe_as_chunk(path: Path) -> str:
    (path / "data/state/0.0").unlink()
    os.mkfifo(path / "data/state/0.0")
    return r"data/state/0\.0 is not a regular file"


def linked_chunk(path: Path) -> str:
    shutil.move(path / "data/state/0.0", path.parent / "elsewhere")
    (path / "data/state/0.0").symlink_to(path.parent / "elsewhere")
    return r"data/state/0\.0 is a link, allowed are files and folders of the store's own"


def linked_array(path: Path) -> str:
    shutil.move(path / "data/state", path.parent / "elsewhere")
    (path / "data/state").symlink_to(path.parent / "elsewhere")
    return "data/state is a link"


def linked_group(path: Path) -> str:
    shutil.move(path / "data", path.parent / "elsewhere")
    (path / "data").symlink_to(path.parent / "elsewhere")
    return "data is a link"


def large_chunk(path: Path) -> str:
    with open(path / "data/state/0.0", "wb") as file:
        file.truncate(1 << 40)
    return r"data/state/0\.0 has 1099511627776 bytes, allowed are at most"


@pytest.mark.parametrize(
    "spoil", [linked_to_a_device, pipe, pipe_as_chunk, linked_chunk, linked_array, linked_group, large_chunk]
)
def test_files_that_are_not_the_stores_own_are_refused(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    path = write_store(tmp_path / "store.zarr")
    refused(path, spoil(path))


def test_a_link_to_the_store_itself_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write_store(tmp_path / "store.zarr"))
    assert len(load_demonstrations(tmp_path / "link", task="pusht").actions) == STEPS


def test_a_device_in_place_of_a_zip_file_is_refused() -> None:
    refused(Path("/dev/zero"), "not a zarr store .* it is not a regular file")


def test_the_kind_of_store_does_not_follow_from_its_name(tmp_path: Path) -> None:
    """Zarr-python 2 takes `.n5` for another format, whose codecs stand in other files."""
    for suffix in ("n5", "zip"):
        assert len(
            load_demonstrations(
                write_store(tmp_path / "store.zarr").rename(tmp_path / f"a.{suffix}"), task="pusht"
            ).actions
        )


def test_a_path_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    refused(tmp_path / ("a" * 300), "cannot be read: File name too long")


@pytest.mark.parametrize(
    ("flags", "method", "message"),
    [
        (1, 0, "is encrypted or a patch"),
        (0x20, 0, "is encrypted or a patch"),
        (0, 12, "has compression method 12"),
    ],
)
def test_zip_members_that_cannot_be_read_in_bounds_are_refused(
    tmp_path: Path, flags: int, method: int, message: str
) -> None:
    path = zipped(write_store(tmp_path / "store.zarr"))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/state/.zarray"))
    content[entry + 8], content[entry + 10] = flags, method
    path.write_bytes(content)
    refused(path, f"not a zarr store .*: member 'data/state/.zarray' {message}")


def test_a_zip_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr")
    (path / "data" / ".zattrs").write_bytes(os.urandom(100_000))
    path = zipped(path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/.zattrs"))
    content[entry + 24 : entry + 28] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    refused(
        path, r"data/\.zattrs has 1000\d\d bytes, of which the zip's directory says that they are 10 when"
    )
