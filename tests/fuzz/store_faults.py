"""Faults of zarr stores, in a folder or a zip file."""

from __future__ import annotations

import json
import os
import shutil
import struct
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numcodecs
import numpy as np

from tests.fuzz.damage import damaged_bytes, damaged_json
from tests.fuzz.file_kinds import FILE_KINDS, put_in_place
from tests.fuzz.safetensors_faults import HOSTILE_TEXTS

METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")
CODECS = (
    *({"id": name} for name in ("pickle", "json2", "msgpack2", "vlen-utf8", "categorize", "zfpy", "pcodec")),
    *({"id": name} for name in ("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "crc32", "shuffle")),
    {"id": "blosc", "cname": "nosuch", "clevel": 99, "shuffle": 7, "blocksize": 2**40},
    {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 1, "typesize": 0},
    {"id": "zstd", "level": 10**9},
    {"id": "delta", "dtype": "<f4", "astype": "O"},
    {"id": "shuffle", "elementsize": 0},
    *(
        {"name": name}
        for name in ("blosc", "gzip", "zstd", "bytes", "crc32c", "transpose", "vlen-utf8", "numcodecs.pickle")
    ),
    {"name": "transpose", "configuration": {"order": [5, 5]}},
    {"name": "bytes", "configuration": {"endian": "middle"}},
    {"name": "sharding_indexed", "configuration": {"chunk_shape": [0, 1], "codecs": [{"name": "bytes"}]}},
)
DTYPES = (
    "O",
    "|O",
    "<f8",
    ">f4",
    "<i4",
    "|S4",
    "<U4",
    "<M8[ns]",
    "|V8",
    "b1",
    "<f16",
    [["a", "<f4"]],
    "|O8",
    "<c8",
)


def inject_store_fault(rng: np.random.Generator, good: Path, path: Path) -> str:
    """Copy a good store, a folder or a zip file, with a fault in it; returns what is wrong."""
    if good.is_file():
        return _damage_zip(rng, good, path)
    shutil.copytree(good, path)
    return damage_folder(rng, path)


def damage_folder(rng: np.random.Generator, store: Path) -> str:
    """Put a fault into a store in a folder."""
    files = sorted(file for file in store.rglob("*") if file.is_file())
    metadata = [file for file in files if file.name in METADATA]
    chunks = [file for file in files if file.name not in METADATA]
    kind = rng.choice(
        [
            "json",
            "codec",
            "dtype",
            "sizes",
            "text",
            "metadata bytes",
            "chunk bytes",
            "bomb",
            "chunk",
            "file",
            "tree",
        ],
        p=[0.25, 0.08, 0.06, 0.1, 0.03, 0.08, 0.2, 0.04, 0.06, 0.07, 0.03],
    )
    if kind in ("codec", "dtype", "sizes"):
        arrays = [file for file in metadata if "shape" in json.loads(file.read_text())]
        return _damage_array(rng, arrays[rng.integers(len(arrays))], kind, store)
    if kind in ("json", "text", "metadata bytes"):
        file = metadata[rng.integers(len(metadata))]
        return f"{file.relative_to(store)}, {_damage_metadata(rng, file, kind)}"
    file = chunks[rng.integers(len(chunks))]
    where = str(file.relative_to(store))
    if kind == "chunk bytes":
        damaged, text = damaged_bytes(rng, file.read_bytes())
        file.write_bytes(damaged)
        return f"{where}, {text}"
    if kind == "bomb":
        return f"{where}, {_bomb(rng, file)}"
    if kind == "chunk":
        other = chunks[rng.integers(len(chunks))]
        choice = rng.integers(3)
        if choice == 0:
            file.unlink()
            return f"{where} is missing"
        if choice == 1:
            shutil.copyfile(file, other) if other != file else None
            return f"{other.relative_to(store)} is {where}"
        shutil.copyfile(file, file.with_name("99.7.7"))
        return f"{where} is there under another name, too"
    if kind == "file":
        file = files[rng.integers(len(files))]
        return f"{file.relative_to(store)} {_replace(rng, file)}"
    folders = sorted(folder for folder in store.rglob("*") if folder.is_dir())
    folder = folders[rng.integers(len(folders))]
    choice = rng.choice(["gone", "a file", "renamed", "a link"])
    moved = folder.rename(folder.with_name("moved"))
    if choice == "gone":
        shutil.rmtree(moved)
    elif choice == "a file":
        folder.write_bytes(b"x")
    elif choice == "a link":
        folder.symlink_to("moved")
    return f"folder {folder.relative_to(store)} is {choice}"


def _damage_metadata(rng: np.random.Generator, file: Path, kind: str) -> str:
    content = file.read_bytes()
    if kind == "json":
        changed, text = damaged_json(rng, json.loads(content))
        file.write_text(json.dumps(changed))
        return text
    if kind == "text":
        text = HOSTILE_TEXTS[rng.integers(len(HOSTILE_TEXTS))]
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        return f"is {text[:30]!r}"
    damaged, text = damaged_bytes(rng, content)
    file.write_bytes(damaged)
    return text


def _damage_array(rng: np.random.Generator, file: Path, kind: str, store: Path) -> str:
    """Change what zarr is about to run, or how much it is about to take."""
    metadata = json.loads(file.read_text())
    if kind == "codec":
        key = ["compressor", "filters", "codecs"][rng.integers(3)]
        codec = CODECS[rng.integers(len(CODECS))]
        old = metadata.get(key)
        value = codec if key == "compressor" else [codec] if rng.random() < 0.5 or not old else [*old, codec]
    elif kind == "dtype":
        key = "dtype" if "dtype" in metadata else "data_type"
        value = DTYPES[rng.integers(len(DTYPES))]
    else:
        key = "shape" if rng.random() < 0.5 else "chunks"
        sizes = [int(size) for size in metadata["shape"]]
        sizes[rng.integers(len(sizes))] = [0, -1, 1, 2, 10**7, 10**9, 2**31, 2**40, 2**63][rng.integers(9)]
        value = sizes
        if key == "chunks" and "chunk_grid" in metadata:
            key, value = "chunk_grid", {"name": "regular", "configuration": {"chunk_shape": sizes}}
    metadata[key] = value
    if kind == "dtype" and rng.random() < 0.5:
        metadata["fill_value"] = ["gASVBgAAAAAAAABLAS4=", None, 0, "NaN"][rng.integers(4)]
    file.write_text(json.dumps(metadata))
    return f"{file.relative_to(store)}, {key} is {str(value)[:80]}"


def _bomb(rng: np.random.Generator, file: Path) -> str:
    kind = str(rng.choice(["zstd", "zlib", "blosc", "lz4", "gzip", "bz2"]))
    content = _bomb_content(kind)
    file.write_bytes(content)
    return f"is a {kind} bomb of {len(content)} bytes"


@cache
def _bomb_content(kind: str) -> bytes:
    """Few bytes that unpack to 400 MiB."""
    packers = {
        "zstd": numcodecs.Zstd,
        "blosc": numcodecs.Blosc,
        "lz4": numcodecs.LZ4,
        "zlib": numcodecs.Zlib,
        "gzip": numcodecs.GZip,
        "bz2": numcodecs.BZ2,
    }
    return bytes(packers[kind]().encode(bytes(400 << 20)))


def _replace(rng: np.random.Generator, file: Path) -> str:
    kind = str(rng.choice([*FILE_KINDS, "unreadable name"]))
    content = file.read_bytes()
    file.unlink()
    if kind == "unreadable name":
        Path(os.fsdecode(os.fsencode(file) + b"\xff\n")).write_bytes(content)
    else:
        put_in_place(kind, content, file)
    return f"is {kind}"


def _damage_zip(rng: np.random.Generator, good: Path, path: Path) -> str:
    """Damage a zip file: its bytes, its directory, or the store inside."""
    content = good.read_bytes()
    kind = rng.choice(
        ["bytes", "directory", "store", "members", "sizes", "nothing of a zip"],
        p=[0.2, 0.2, 0.3, 0.15, 0.1, 0.05],
    )
    if kind == "bytes":
        damaged, text = damaged_bytes(rng, content)
        path.write_bytes(damaged)
        return text
    if kind == "directory":
        start = content.index(b"PK\x01\x02")
        damaged, text = damaged_bytes(rng, content, start=start)
        path.write_bytes(damaged)
        return f"in the directory, {text}"
    if kind == "nothing of a zip":
        path.write_bytes(rng.bytes(300))
        return "random bytes"
    if kind == "store":
        folder = path.with_name("unpacked")
        with zipfile.ZipFile(good) as opened:
            opened.extractall(folder)
        text = damage_folder(rng, folder)
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(
                file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()
            ):
                if file.stat().st_size < 100 << 20 and b"\xff" not in os.fsencode(file):
                    packed.write(file, file.relative_to(folder))
        return text
    if kind == "sizes":
        return _damage_sizes(rng, content, path)
    text = str(
        rng.choice(["twice", "parent path", "absolute path", "link", "deflated bomb", "another method"])
    )
    shutil.copyfile(good, path)
    with zipfile.ZipFile(path, "a") as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = opened.namelist()
        name = names[rng.integers(len(names))]
        if text == "twice":
            opened.writestr(name, b"other")
        elif text == "parent path":
            opened.writestr("../../outside", b"x")
        elif text == "absolute path":
            opened.writestr("/tmp/outside", b"x")
        elif text == "link":
            member = zipfile.ZipInfo("data/link")
            member.external_attr = 0o120777 << 16
            opened.writestr(member, "/etc/passwd")
        elif text == "deflated bomb":
            opened.writestr(name, bytes(100 << 20), zipfile.ZIP_DEFLATED)
        else:
            opened.writestr(name, b"x" * 5000, zipfile.ZIP_LZMA)
    return f"a member more: {text} ({name})"


def _damage_sizes(rng: np.random.Generator, content: bytes, path: Path) -> str:
    """Lie about a member's size in the directory."""
    places = [at for at in range(len(content) - 4) if content[at : at + 4] == b"PK\x01\x02"]
    place = places[rng.integers(len(places))] + int(rng.choice([10, 16, 20, 24, 28, 30, 32, 42]))
    value = int(rng.choice([0, 1, 7, 2**16, 2**31, 2**32 - 1]))
    path.write_bytes(content[:place] + struct.pack("<I", value) + content[place + 4 :])
    return f"byte {place} of the directory says {value}"
