"""Files of a zarr store, in a folder or a zip file, looked at before zarr opens it.

Nothing is read through a link, and no more than a file of that kind may hold.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import zarr

from training.data.bounded_zip import check_method
from training.data.packed_chunks import chunk_fault
from training.data.store_codecs import shortened

MOST_METADATA_BYTES = 1 << 20
MOST_PACKING_BYTES = 1 << 12  # that a zip file may add to a member that cannot be compressed
IS_ZARR_2 = zarr.__version__.startswith("2.")


class StoreError(ValueError):
    """A store that is not opened. The message names the store, the file or array, and what is allowed."""


class StoreFiles(Protocol):
    """What is looked at in a store. Names are relative to it, as in `data/state/.zarray`."""

    path: Path

    def metadata(self, name: str) -> bytes | None:
        """Content of a metadata file; None where there is none. Raises StoreError."""
        ...

    def check_sizes(
        self, array: str, most_bytes: int, *, compressor: str = "", most_unpacked: int = 0
    ) -> None:
        """Raise StoreError if a file of an array is no regular file of its own, or is or unpacks to more than this."""
        ...


class FolderFiles:
    """Files of a store in a folder, which may itself be named by a link."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def metadata(self, name: str) -> bytes | None:
        parts = PurePosixPath(name).parts
        try:
            for count in range(1, len(parts)):
                self._refuse_link("/".join(parts[:count]), os.lstat(self.path.joinpath(*parts[:count])))
            found = os.lstat(self.path / name)
            self._check_file(name, found, MOST_METADATA_BYTES)
            # Neither a link nor a pipe that has taken its place meanwhile is followed or waited for.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                return file.read(MOST_METADATA_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: {shortened(name)} cannot be read: {error.strerror}") from error

    def check_sizes(
        self, array: str, most_bytes: int, *, compressor: str = "", most_unpacked: int = 0
    ) -> None:
        folders = [array]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self.path / folder) as entries:
                    for entry in entries:
                        name = f"{folder}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(name)
                            continue
                        try:
                            found = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # another worker's temporary file, renamed meanwhile
                        self._check_file(name, found, most_bytes)
                        if compressor and not _is_metadata(entry.name):
                            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                            with open(descriptor, "rb") as file:
                                fault = chunk_fault(
                                    compressor, file, size=found.st_size, most_bytes=most_unpacked
                                )
                            _refuse_chunk(self.path, name, fault)
            except OSError as error:
                raise StoreError(
                    f"{self.path}: {shortened(folder)} cannot be read: {error.strerror}"
                ) from error

    def _check_file(self, name: str, found: os.stat_result, most_bytes: int) -> None:
        self._refuse_link(name, found)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(f"{self.path}: {shortened(name)} is not a regular file, which alone is allowed")
        _check_size(self.path, name, size=found.st_size, most_bytes=most_bytes)

    def _refuse_link(self, name: str, found: os.stat_result) -> None:
        if stat.S_ISLNK(found.st_mode):
            raise StoreError(
                f"{self.path}: {shortened(name)} is a link, allowed are files and folders of the store's own"
            )


class ZipFiles:
    """Files of a store in a zip file."""

    def __init__(self, path: Path, opened: zipfile.ZipFile) -> None:
        self.path = path
        self._opened = opened

    def metadata(self, name: str) -> bytes | None:
        try:
            member = self._opened.getinfo(name)
        except KeyError:
            return None
        self._check_member(member, MOST_METADATA_BYTES)
        try:
            # With a size: without one, `zipfile` unpacks all that is there, not what the directory says.
            with self._opened.open(member) as file:
                return file.read(member.file_size)
        except (zlib.error, EOFError) as error:
            raise StoreError(f"{self.path}: {shortened(name)} is damaged: {error}") from error

    def check_sizes(
        self, array: str, most_bytes: int, *, compressor: str = "", most_unpacked: int = 0
    ) -> None:
        for member in self._opened.infolist():
            if not member.filename.startswith(f"{array}/"):
                continue
            self._check_member(member, most_bytes)
            if compressor and not member.is_dir() and not _is_metadata(member.filename.rpartition("/")[2]):
                try:
                    with self._opened.open(member) as file:
                        fault = chunk_fault(compressor, file, size=member.file_size, most_bytes=most_unpacked)
                except (zlib.error, EOFError) as error:
                    raise StoreError(
                        f"{self.path}: {shortened(member.filename)} is damaged: {error}"
                    ) from error
                _refuse_chunk(self.path, member.filename, fault)

    def _check_member(self, member: zipfile.ZipInfo, most_bytes: int) -> None:
        check_method(member)
        if member.compress_size > member.file_size + MOST_PACKING_BYTES:
            raise StoreError(
                f"{self.path}: {shortened(member.filename)} has {member.compress_size} bytes, "
                f"of which the zip's directory says that they are {member.file_size} when unpacked"
            )
        _check_size(self.path, member.filename, size=member.file_size, most_bytes=most_bytes)


def folder_store(path: Path, *, read_only: bool) -> Any:
    """Zarr's store of a folder. From a string, zarr would choose the kind of store by how the name ends."""
    if IS_ZARR_2:
        return getattr(zarr, "DirectoryStore")(str(path))  # noqa: B009 - zarr-python 3 has no such name
    return zarr.storage.LocalStore(path, read_only=read_only)


def open_group(store: Any, *, mode: Literal["r", "r+", "w"], **options: Any) -> Any:
    """Root group of a store. Its arrays are described by their own metadata, even where there are consolidated ones."""
    if not IS_ZARR_2:
        options["use_consolidated"] = False
    return zarr.open_group(store, mode=mode, **options)


def _is_metadata(name: str) -> bool:
    return name.startswith(".z") or name == "zarr.json"


def _refuse_chunk(path: Path, name: str, fault: str) -> None:
    if fault:
        raise StoreError(f"{path}: {shortened(name)} {fault}")


def _check_size(path: Path, name: str, *, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise StoreError(f"{path}: {shortened(name)} has {size} bytes, allowed are at most {most_bytes}")
