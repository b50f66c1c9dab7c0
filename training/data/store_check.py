"""Check of a zarr store before zarr opens it: what its metadata name, and how much they claim.

Zarr runs what metadata name and allocates what they claim. So the metadata that it will read are read here first, as
JSON and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from training.data.packed_chunks import COMPRESSORS
from training.data.store_codecs import (
    ContentError,
    check_codec_2,
    codec_3,
    number_bytes_2,
    number_bytes_3,
    shortened,
)
from training.data.store_files import StoreError, StoreFiles

METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")
MOST_ROWS = 10_000_000
MOST_ARRAY_BYTES = 64 << 30
MOST_CHUNK_BYTES = 1 << 30  # Blosc holds less than twice that
MOST_CHUNKS = MOST_CHUNKS_IN_SHARD = 1 << 20
MOST_DIMENSIONS = 32
# A file may be larger than the numbers in it, by what compression adds to noise, and by the array's metadata.
FILE_OVERHEAD_BYTES = 1 << 16
OVERHEAD_BYTES_IN_SHARD = 64  # of each chunk
MOST_WIDENING = 8  # by a filter: numbers of 1 byte as numbers of 8


@dataclass(frozen=True)
class Layout:
    """What metadata say about an array."""

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    number_bytes: int
    chunks_in_shard: int = 0
    compressor: str = ""  # of whole chunks; empty for none, or for chunks in shards

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunk_shape) * self.number_bytes

    @property
    def most_file_bytes(self) -> int:
        return 2 * self.chunk_bytes + FILE_OVERHEAD_BYTES + OVERHEAD_BYTES_IN_SHARD * self.chunks_in_shard


def check_store(files: StoreFiles, arrays: Iterable[str]) -> None:
    """Check all metadata that zarr reads when it opens these arrays, and the sizes of the arrays' files.

    An array that is missing is none of this check's concern. Nor is one that is there but not named, unless
    consolidated metadata describe it: those are read as a whole.

    Raises:
        StoreError: for a codec or a data type that is not known, sizes beyond what is allowed, a link, a special
            file, a file that is too large, and metadata that are not JSON.
    """
    groups = {""}
    names = sorted(arrays)
    for name in names:
        parts = name.split("/")
        groups |= {"/".join(parts[:count]) for count in range(1, len(parts))}
    for group in sorted(groups):
        for layout_of, layout in _layouts(files, group):
            check_layout(layout, where=f"{files.path}: array {shortened(layout_of or '/')}")
    for name in names:
        for layout_of, layout in _layouts(files, name):
            check_layout(layout, where=f"{files.path}: array {layout_of}")
            files.check_sizes(
                name,
                layout.most_file_bytes,
                compressor=layout.compressor,
                most_unpacked=MOST_WIDENING * layout.chunk_bytes + FILE_OVERHEAD_BYTES,
            )


def check_layout(layout: Layout, *, where: str) -> None:
    """Raise StoreError, its message beginning with `where`, for sizes beyond what is allowed."""
    shape, chunk_shape = layout.shape, layout.chunk_shape
    shape_text, chunk_text = shortened(str(list(shape))), shortened(str(list(chunk_shape)))
    if len(shape) != len(chunk_shape):
        raise StoreError(f"{where} has {len(shape)} dimensions, but its chunks have {len(chunk_shape)}")
    if not all(1 <= size <= MOST_CHUNK_BYTES for size in chunk_shape):
        raise StoreError(f"{where} has chunks of {chunk_text}, allowed are sizes of 1 to {MOST_CHUNK_BYTES}")
    if not all(0 <= size <= MOST_ROWS for size in shape):
        raise StoreError(f"{where} has the shape {shape_text}, allowed are sizes of 0 to {MOST_ROWS}")
    if (total := math.prod(shape) * layout.number_bytes) > MOST_ARRAY_BYTES:
        raise StoreError(
            f"{where} has the shape {shape_text}, {total} bytes, allowed are at most {MOST_ARRAY_BYTES}"
        )
    chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, chunk_shape, strict=True))
    if chunks > MOST_CHUNKS:
        raise StoreError(
            f"{where} has the shape {shape_text} in chunks of {chunk_text}, {chunks} of them, "
            f"allowed are at most {MOST_CHUNKS}"
        )
    if layout.chunk_bytes > MOST_CHUNK_BYTES:
        raise StoreError(
            f"{where} has chunks of {chunk_text}, {layout.chunk_bytes} bytes, "
            f"allowed are at most {MOST_CHUNK_BYTES}"
        )


def _layouts(files: StoreFiles, folder: str) -> Iterator[tuple[str, Layout]]:
    """Layouts of all arrays that the metadata files of a folder describe, by the arrays' names."""
    for file in METADATA:
        name = _joined(folder, file)
        content = files.metadata(name)
        if content is None:
            continue
        try:
            described = list(_described(folder, file, json.loads(content.decode("utf-8"))))
        # Nested brackets end Python's recursion. What is not UTF-8, and too long a number, are ValueErrors.
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{files.path}: array {folder or '/'} cannot be opened: {name} is not the JSON of a store "
                f"({type(error).__name__})"
            ) from error
        array = folder
        try:
            for array, read_layout, metadata in described:
                yield array, read_layout(metadata)
        except ContentError as error:
            raise StoreError(f"{files.path}: array {shortened(array or '/')} {error} (in {name})") from error


def _described(
    folder: str, file: str, metadata: Any
) -> Iterator[tuple[str, Callable[[dict[str, Any]], Layout], dict[str, Any]]]:
    """Arrays that a metadata file describes: name, how to read its metadata, and the metadata."""
    metadata = _object(metadata)
    if file == ".zarray":
        yield folder, _layout_2, metadata
    elif file == "zarr.json" and metadata.get("node_type") != "group":
        yield folder, _layout_3, metadata
    elif file == "zarr.json":
        consolidated = _object(metadata.get("consolidated_metadata") or {})
        for name, member in _object(consolidated.get("metadata", {})).items():
            yield from _described(_joined(folder, name), "zarr.json", member)
    elif file == ".zmetadata":
        for name, member in _object(metadata.get("metadata", {})).items():
            above, _, member_file = name.rpartition("/")
            if member_file in METADATA and member_file != ".zmetadata":
                yield from _described(_joined(folder, above), member_file, member)


def _layout_2(metadata: dict[str, Any]) -> Layout:
    """Layout of an array of zarr format 2, its codecs checked."""
    number_bytes = number_bytes_2(metadata.get("dtype"))
    if metadata.get("compressor") is not None:
        check_codec_2("compressor", metadata["compressor"])
    for codec in _list("filters", metadata.get("filters") or []):
        check_codec_2("filter", codec)
    shape, chunk_shape = _sizes("shape", metadata.get("shape")), _sizes("chunks", metadata.get("chunks"))
    packed = [*(metadata.get("filters") or []), *filter(None, [metadata.get("compressor")])]
    return Layout(shape, chunk_shape, number_bytes, compressor=_compressor([codec["id"] for codec in packed]))


def _compressor(names: list[str], *, allowed_after: tuple[str, ...] = ()) -> str:
    """The one codec that compresses, from the codecs in the order in which they pack. Raises ContentError."""
    packing = [name for name in names if name.removeprefix("numcodecs.") in COMPRESSORS]
    if len(packing) > 1:
        raise ContentError(f"is compressed by {' and '.join(packing)}, allowed is one of them")
    if not packing:
        return ""
    for name in names[names.index(packing[0]) + 1 :]:
        if name not in allowed_after:
            raise ContentError(
                f"has the codec {name} after {packing[0]}, allowed is the compressor at the end"
            )
    return packing[0].removeprefix("numcodecs.")


def _layout_3(metadata: dict[str, Any]) -> Layout:
    """Layout of an array of zarr format 3, its codecs checked."""
    number_bytes = number_bytes_3(metadata.get("data_type"))
    grid = metadata.get("chunk_grid")
    if (
        not isinstance(grid, dict)
        or grid.get("name") != "regular"
        or not isinstance(grid.get("configuration"), dict)
    ):
        raise ContentError("has an unknown chunk_grid, allowed is regular")
    shape = _sizes("shape", metadata.get("shape"))
    chunk_shape = _sizes("chunk_shape", grid["configuration"].get("chunk_shape"))
    if metadata.get("storage_transformers"):
        raise ContentError("has storage_transformers, allowed are none")
    chunks_in_shard = 0
    names = []
    for codec in _list("codecs", metadata.get("codecs")):
        name, configuration = codec_3(codec)
        names.append(name)
        if name == "sharding_indexed":
            chunks_in_shard = _chunks_in_shard(configuration, chunk_shape)
    compressor = _compressor(names, allowed_after=("crc32c",))
    return Layout(
        shape,
        chunk_shape,
        number_bytes=number_bytes,
        chunks_in_shard=chunks_in_shard,
        compressor=compressor,
    )


def _chunks_in_shard(configuration: dict[str, Any], shard_shape: tuple[int, ...]) -> int:
    """Number of the chunks inside a shard, their codecs checked. Raises ContentError."""
    for key in ("codecs", "index_codecs"):
        for codec in _list(key, configuration.get(key)):
            name, _ = codec_3(codec)
            if name == "sharding_indexed":
                raise ContentError("has shards in shards, allowed is sharding_indexed once")
            # A Blosc chunk that lies about its size ends the process, and those in shards are not looked at.
            if name == "blosc":
                raise ContentError("has blosc in shards, allowed are gzip, zstd, or blosc without shards")
    chunk_shape = _sizes("chunk_shape", configuration.get("chunk_shape"))
    if len(chunk_shape) != len(shard_shape) or any(size < 1 for size in chunk_shape):
        raise ContentError("has other chunks in its shards than sizes of at least 1")
    chunks = math.prod(-(-shard // chunk) for shard, chunk in zip(shard_shape, chunk_shape, strict=True))
    if chunks > MOST_CHUNKS_IN_SHARD:
        raise ContentError(
            f"has more than {MOST_CHUNKS_IN_SHARD} chunks in a shard, which is the most allowed"
        )
    return chunks


def _sizes(key: str, value: Any) -> tuple[int, ...]:
    sizes = _list(key, value)
    if len(sizes) > MOST_DIMENSIONS or not all(type(size) is int for size in sizes):
        raise ContentError(
            f"has the {key} {shortened(repr(value))}, allowed are at most {MOST_DIMENSIONS} integers"
        )
    return tuple(sizes)


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ContentError(f"has the {key} {shortened(value)}, allowed is a list")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object of JSON")
    return value


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
