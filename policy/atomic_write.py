"""Atomic writes: a file appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path


def is_temporary(path: Path, name: str = "*") -> bool:
    """Whether a path is named as the temporary one of a file. In the file's name, ``*`` stands for anything."""
    found = re.fullmatch(r"\.(.*)\.\d+\.tmp(\.[^.]*)?", path.name)
    return found is not None and fnmatchcase(f"{found[1]}{found[2] or ''}", name)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove temporary files that killed processes left of the named files. No other process may be writing them."""
    for name in names:
        for path in folder.iterdir():
            if is_temporary(path, name):
                path.unlink(missing_ok=True)


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
