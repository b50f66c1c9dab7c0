"""Zip files from strangers: opened in bounded memory, their members judged by the zip's own directory."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_MEMBERS = 100_000
MOST_DIRECTORY_BYTES = 16 << 20
# The others unpack a block of any size at once.
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
ENCRYPTED_OR_PATCHED = 0x1 | 0x20 | 0x40


class _LimitedReader(io.BufferedReader):
    """A reader that refuses the one read that takes as much memory as the file says: that of the zip's directory."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(
                f"its directory has {wanted} bytes, allowed are at most {MOST_DIRECTORY_BYTES}"
            )
        return super().read(size)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read.

    Raises:
        zipfile.BadZipFile: if it is damaged, no zip file or no regular file, or has too many members.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise zipfile.BadZipFile("it is not a regular file")
    with _LimitedReader(io.FileIO(path)) as reader:
        try:
            opened = zipfile.ZipFile(reader)
        # What the standard library raises for impossible offsets, names and versions.
        except (ValueError, OverflowError, NotImplementedError, struct.error) as error:
            raise zipfile.BadZipFile(f"it is damaged: {error}") from error
        with opened:
            if len(opened.filelist) > MOST_MEMBERS:
                raise zipfile.BadZipFile(
                    f"it has {len(opened.filelist)} members, allowed are at most {MOST_MEMBERS}"
                )
            yield opened


def check_method(member: zipfile.ZipInfo) -> None:
    """Raise zipfile.BadZipFile for a member that cannot be read block by block, is encrypted or a patch."""
    if member.compress_type not in METHODS:
        allowed = " and ".join(METHODS.values())
        raise zipfile.BadZipFile(
            f"member {member.filename!r} has compression method {member.compress_type}, allowed are {allowed}"
        )
    if member.flag_bits & ENCRYPTED_OR_PATCHED:
        raise zipfile.BadZipFile(f"member {member.filename!r} is encrypted or a patch")


def check_names(members: Iterable[zipfile.ZipInfo]) -> None:
    """Raise zipfile.BadZipFile for a name that may lead out of the folder it is unpacked in."""
    for member in members:
        # `orig_filename` is the name before `zipfile` cut it at a NUL.
        name = member.orig_filename
        if name.startswith("/") or ".." in name.split("/") or set(name) & set("\\:\0"):
            raise zipfile.BadZipFile(
                f"member {name!r} may lead out of the folder, allowed are relative paths without '..'"
            )


def check_unpackable(members: Iterable[zipfile.ZipInfo], *, most_bytes: int) -> None:
    """Check members before they are unpacked, without reading them.

    Raises:
        zipfile.BadZipFile: if they hold more than `most_bytes` when unpacked, a link or another special file, a name
            twice, or a file that is also a folder.
    """
    kinds: dict[str, bool] = {}
    total = 0
    for member in members:
        check_method(member)
        mode = stat.S_IFMT(member.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "a link" if stat.S_ISLNK(mode) else "a special file"
            raise zipfile.BadZipFile(f"member {member.filename!r} is {kind}, allowed are files and folders")
        name = member.filename.rstrip("/")
        if name in kinds:
            raise zipfile.BadZipFile(f"member {member.filename!r} is there twice")
        kinds[name] = member.is_dir()
        total += member.file_size
        if total > most_bytes:
            raise zipfile.BadZipFile(f"it unpacks to more than {most_bytes} bytes, which is the most allowed")
    for name in kinds:
        parent = name.rpartition("/")[0]
        if parent and not kinds.get(parent, True):
            raise zipfile.BadZipFile(f"member {parent!r} is a file and a folder")
