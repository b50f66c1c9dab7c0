"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder. No other process may be writing to it."""
    for leftover in folder.glob(".*.tmp*"):
        leftover.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to. It replaces the file at the end; an exception leaves the file as it was.

    Args:
        path: file to replace; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, because a rename stays within a file system. With its suffix, by which some writers choose the
    # format. With this process's id, because another process may be writing the same file.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        # A full disk, for instance: what fails is a write to an open file, which does not know its name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
