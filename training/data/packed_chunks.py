"""What a compressed chunk says of itself, before zarr unpacks it: codecs believe that."""

from __future__ import annotations

import bz2
import gzip
import zlib
from typing import IO

COMPRESSORS = frozenset({"blosc", "bz2", "gzip", "lz4", "zlib", "zstd"})
BLOCK_BYTES = 1 << 20
# Deflate packs at most 1032 bytes into one, so that a small file is no danger and need not be unpacked twice.
MOST_BY_DEFLATE, HARMLESS_BYTES = 1032, 64 << 20


def chunk_fault(compressor: str, file: IO[bytes], *, size: int, most_bytes: int) -> str:
    """Why a chunk must not be unpacked, in words; empty if it may be.

    It would unpack to more than it should, or Blosc would read more than there is, which ends the process. Blosc, lz4
    (as numcodecs packs it) and zstd say at their start how much they allocate. The others are unpacked block by block,
    in bounded memory, where they could be more. Other damage is left to the decoder.

    Args:
        compressor: one of `COMPRESSORS`.
        file: the chunk, at its start.
        size: bytes of the chunk.
        most_bytes: bytes that it may unpack to.
    """
    if compressor in ("blosc", "lz4", "zstd"):
        start = file.read(18)
        if compressor == "blosc" and (packed := _blosc_packed_bytes(start)) is not None and packed > size:
            return f"says that it has {packed} bytes, it has {size}"
        told = {"blosc": _blosc_bytes, "lz4": _lz4_bytes, "zstd": _zstd_bytes}[compressor](start)
        is_more = told is not None and told > most_bytes
    elif compressor != "bz2" and size * MOST_BY_DEFLATE <= max(most_bytes, HARMLESS_BYTES):
        is_more = False
    else:
        is_more = _unpacks_to_more(compressor, file, most_bytes)
    return f"unpacks to more than {most_bytes} bytes, which is the most allowed" if is_more else ""


def _unpacks_to_more(compressor: str, file: IO[bytes], most_bytes: int) -> bool:
    unpacked = 0
    try:
        if compressor == "zlib":
            decoder = zlib.decompressobj()
            left = file.read(BLOCK_BYTES)
            while left and unpacked <= most_bytes:
                unpacked += len(decoder.decompress(left, BLOCK_BYTES))
                left = decoder.unconsumed_tail or (b"" if decoder.eof else file.read(BLOCK_BYTES))
            return unpacked > most_bytes
        with gzip.GzipFile(fileobj=file) if compressor == "gzip" else bz2.BZ2File(file) as opened:
            while unpacked <= most_bytes and (block := opened.read(BLOCK_BYTES)):
                unpacked += len(block)
    except (OSError, EOFError, zlib.error):
        return False
    return unpacked > most_bytes


def _blosc_bytes(start: bytes) -> int | None:
    """Bytes 4 to 7 of the header, https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst."""
    return int.from_bytes(start[4:8], "little") if len(start) >= 16 else None


def _blosc_packed_bytes(start: bytes) -> int | None:
    """Bytes 12 to 15 of the header: how far Blosc reads, and what it checks the places of its blocks by."""
    return int.from_bytes(start[12:16], "little") if len(start) >= 16 else None


def _lz4_bytes(start: bytes) -> int | None:
    """The first 4 bytes, which numcodecs puts before LZ4's own."""
    return int.from_bytes(start[:4], "little") if len(start) >= 4 else None


def _zstd_bytes(start: bytes) -> int | None:
    """The frame's content size, if it has one (RFC 8878, section 3.1.1.1)."""
    if start[:4] != b"\x28\xb5\x2f\xfd" or len(start) < 5:
        return None
    descriptor = start[4]
    is_single = bool(descriptor & 0x20)
    place = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    length = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    if not length or len(start) < place + length:
        return None
    return int.from_bytes(start[place : place + length], "little") + (256 if length == 2 else 0)
