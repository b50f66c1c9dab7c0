"""Codecs and data types that a zarr store may name.

Zarr looks codecs up in a registry that has some that run code (`pickle`), and decodes an object array's fill value as
soon as it is opened. So only codecs that turn bytes into bytes or numbers are let through.
"""

from __future__ import annotations

import re
from typing import Any

# As in zarr format 2, where numcodecs defines them.
CODECS_2 = frozenset({"blosc", "bz2", "crc32", "crc32c", "delta", "gzip", "lz4", "shuffle", "zlib", "zstd"})
CODECS_3 = frozenset(
    {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"}
    | {f"numcodecs.{name}" for name in CODECS_2}
)
# Bytes of a number by its name in zarr format 3.
NUMBERS_3 = {
    f"{kind}{bits}": bits // 8
    for kind, sizes in (("int", (8, 16, 32, 64)), ("uint", (8, 16, 32, 64)), ("float", (16, 32, 64)))
    for bits in sizes
}


class ContentError(ValueError):
    """Metadata that are refused. The message lacks the store's and the array's name."""


def number_bytes_2(dtype: Any) -> int:
    """Bytes of a number of zarr format 2, such as `<f4`. Raises ContentError if it is none."""
    match = re.fullmatch(r"[<>|=]?[biuf]([1248])", dtype) if isinstance(dtype, str) else None
    if match is None:
        raise ContentError(f"holds {shortened(dtype)}, expected numbers")
    return int(match[1])


def number_bytes_3(data_type: Any) -> int:
    """Bytes of a number of zarr format 3, such as `float32`. Raises ContentError if it is none."""
    if data_type == "bool":
        return 1
    if not isinstance(data_type, str) or data_type not in NUMBERS_3:
        raise ContentError(f"holds {shortened(data_type)}, expected numbers")
    return NUMBERS_3[data_type]


def check_codec_2(role: str, codec: Any) -> None:
    """Check a compressor or filter of zarr format 2. Raises ContentError."""
    name = codec.get("id") if isinstance(codec, dict) else codec
    if not isinstance(codec, dict) or not isinstance(name, str) or name not in CODECS_2:
        raise ContentError(f"names the {role} {shortened(name)}, allowed are {', '.join(sorted(CODECS_2))}")
    _check_types(codec)


def codec_3(codec: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a codec of zarr format 3. Raises ContentError."""
    name = codec.get("name") if isinstance(codec, dict) else codec
    if not isinstance(name, str) or name not in CODECS_3:
        raise ContentError(f"names the codec {shortened(name)}, allowed are {', '.join(sorted(CODECS_3))}")
    configuration = codec.get("configuration", {}) if isinstance(codec, dict) else {}
    if not isinstance(configuration, dict):
        raise ContentError(f"configures the codec {name} by {shortened(configuration)}, expected an object")
    _check_types(configuration)
    return name, configuration


def shortened(value: Any) -> str:
    """A value of JSON as it was written, if that is short."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = value if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check_types(configuration: dict[str, Any]) -> None:
    for key in ("dtype", "astype"):
        if configuration.get(key) is not None:
            number_bytes_2(configuration[key])
