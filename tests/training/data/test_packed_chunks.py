"""Chunks that unpack to more than they should are known before they are unpacked."""

from __future__ import annotations

import io
import json
import shutil
import tracemalloc
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr

from training.data.demonstrations import DemonstrationError, load_demonstrations
from training.data.packed_chunks import COMPRESSORS, chunk_fault
from training.data.store_check import StoreError, check_store
from training.data.store_files import FolderFiles, StoreFiles, ZipFiles

CODECS = {
    "blosc": numcodecs.Blosc,
    "bz2": numcodecs.BZ2,
    "gzip": numcodecs.GZip,
    "lz4": numcodecs.LZ4,
    "zlib": numcodecs.Zlib,
    "zstd": numcodecs.Zstd,
}
ZARR_3 = not zarr.__version__.startswith("2.")


@cache
def bomb(name: str) -> bytes:
    """80 MiB, packed."""
    return bytes(CODECS[name]().encode(bytes(80 << 20)))


def is_more(name: str, packed: bytes, most_bytes: int) -> bool:
    return "unpacks to more" in chunk_fault(name, io.BytesIO(packed), size=len(packed), most_bytes=most_bytes)


def test_all_compressors_are_tested() -> None:
    assert CODECS.keys() == COMPRESSORS


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("size", [1, 200, 255, 256, 257, 65535, 65536, 65800, 1 << 20])
def test_the_size_of_what_was_packed_is_known(name: str, size: int) -> None:
    packed = bytes(CODECS[name]().encode(bytes(size)))
    assert not is_more(name, packed, size)
    # What deflate packed so small is let through, as it cannot become more than 64 MiB.
    assert is_more(name, packed, size - 1) == (name not in ("gzip", "zlib"))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_bomb_is_found_in_little_memory(name: str) -> None:
    packed = bomb(name)
    tracemalloc.start()
    try:
        assert is_more(name, packed, 1000)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted(CODECS))
def test_what_is_damaged_is_left_to_the_decoder(name: str) -> None:
    packed = bytes(CODECS[name]().encode(np.random.default_rng(0).bytes(5000)))
    for damaged in (b"", packed[:3], packed[:20], b"x" * 3):
        assert not is_more(name, damaged, 1 << 32)


def test_a_blosc_chunk_that_claims_more_bytes_than_it_has_is_no_chunk() -> None:
    packed = bytes(numcodecs.Blosc().encode(np.arange(180, dtype=np.float32)))

    def fault(content: bytes) -> str:
        return chunk_fault("blosc", io.BytesIO(content), size=len(content), most_bytes=1000)

    assert fault(packed) == ""
    assert fault(packed[:-1]) == f"says that it has {len(packed)} bytes, it has {len(packed) - 1}"
    # As a byte of a file was once changed: Blosc reads there, and the process ends.
    assert "says that it has" in fault(packed[:12] + (1_035_291_305).to_bytes(4, "little") + packed[16:])


def write_array(path: Path, **options: Any) -> Path:
    group: Any = zarr.open_group(str(path), mode="w", **({"zarr_format": 2} if ZARR_3 else {}))
    write = group.create_array if ZARR_3 else group.array
    write("numbers", data=np.arange(20, dtype=np.float32), chunks=(10,), **options)
    return path


@pytest.mark.parametrize("name", sorted(CODECS))
def test_a_store_with_a_bomb_is_refused(tmp_path: Path, name: str) -> None:
    codec = CODECS[name]()
    path = write_array(tmp_path / "store.zarr", **{"compressors" if ZARR_3 else "compressor": codec})
    check_store(FolderFiles(path), ["numbers"])
    (path / "numbers" / "1").write_bytes(bomb(name))
    with pytest.raises(StoreError, match=r"numbers/1 (unpacks to more than|has \d+ bytes)"):
        check_store(FolderFiles(path), ["numbers"])


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_store_with_a_blosc_chunk_that_lies_about_its_size_is_refused(tmp_path: Path, as_zip: bool) -> None:
    codec = numcodecs.Blosc()
    path = write_array(tmp_path / "store.zarr", **{"compressors" if ZARR_3 else "compressor": codec})
    chunk = path / "numbers" / "1"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:12] + (1 << 30).to_bytes(4, "little") + content[16:])
    files: StoreFiles = FolderFiles(path)
    if as_zip:
        files = ZipFiles(path, zipfile.ZipFile(shutil.make_archive(str(path), "zip", path)))
    with pytest.raises(StoreError, match=r"numbers/1 says that it has 1073741824 bytes, it has \d+$"):
        check_store(files, ["numbers"])


@pytest.mark.skipif(not ZARR_3, reason="zarr-python 2 has no shards")
def test_blosc_in_shards_which_are_not_looked_into_is_refused(tmp_path: Path) -> None:
    group: Any = zarr.open_group(str(tmp_path / "store.zarr"), mode="w", zarr_format=3)
    group.create_array(
        "numbers",
        data=np.arange(20, dtype=np.float32),
        chunks=(5,),
        shards=(20,),
        compressors=zarr.codecs.BloscCodec(),
    )
    with pytest.raises(StoreError, match="array numbers has blosc in shards, allowed are gzip, zstd"):
        check_store(FolderFiles(tmp_path / "store.zarr"), ["numbers"])


@pytest.mark.parametrize(
    ("filters", "message"),
    [([{"id": "zstd"}], "compressed by zstd and blosc"), ([{"id": "zstd"}, {"id": "crc32"}], "after zstd")],
)
def test_a_compressor_cannot_hide_below_another_codec(
    tmp_path: Path, filters: list[dict[str, str]], message: str
) -> None:
    path = write_array(tmp_path / "store.zarr")
    file = path / "numbers" / ".zarray"
    compressor = {"id": "blosc"} if len(filters) == 1 else None
    file.write_text(json.dumps(json.loads(file.read_text()) | {"filters": filters, "compressor": compressor}))
    with pytest.raises(StoreError, match=message):
        check_store(FolderFiles(path), ["numbers"])


def test_more_chunks_than_anybody_looks_for_are_refused(tmp_path: Path) -> None:
    path = write_array(tmp_path / "store.zarr")
    file = path / "numbers" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [2_000_000], "chunks": [1]}))
    with pytest.raises(StoreError, match=r"numbers has the shape .* 2000000 of them, allowed are at most"):
        check_store(FolderFiles(path), ["numbers"])


def test_an_error_that_quotes_a_damaged_zip_file_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(".zattrs", bytes(30_000))
    content = bytearray(path.read_bytes())
    content[26:28] = (20_000).to_bytes(2, "little")  # length of the name, before the content
    path.write_bytes(content)
    with pytest.raises(DemonstrationError, match="File name in directory") as raised:
        load_demonstrations(path)
    assert len(str(raised.value)) < 1000
