"""Output directories: a command writes into those that are its own, and one process at a time trains in one."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from policy.atomic_write import atomic_write, is_temporary
from training.provenance import code_version, command_line

MARKER, LOCK, HOLDER = ".pcm_policy.json", ".pcm_policy.lock", ".pcm_policy.holder.json"
SECONDS_TO_SAY_WHO = 2.0


@dataclass(frozen=True)
class Outputs:
    """What a command writes into an output directory.

    Attributes:
        command: name of the command, such as ``pcm-evaluate``.
        names: names of its files and folders; ``*`` stands for anything.
        is_own: whether a path in the directory can only be the command's. Directories of before there was a marker are
            recognised by it.
    """

    command: str
    names: tuple[str, ...]
    is_own: Callable[[Path], bool]


def check_output_dir(directory: Path, outputs: Outputs, *, overwrite: bool = False) -> None:
    """Refuse a directory with other things in it than the command's own.

    Args:
        overwrite: whether to write into any directory.

    Raises:
        ValueError: for such a directory. The message says how to insist.
    """
    if overwrite or not directory.is_dir():
        return
    marker = _read_json(directory / MARKER)
    if marker.get("command") == outputs.command:
        return
    entries = sorted(path for path in directory.iterdir() if path.name not in (MARKER, LOCK, HOLDER))
    foreign = [path.name for path in entries if not _is_written_by(outputs, path.name)]
    visible = [path for path in entries if not is_temporary(path)]
    if "command" not in marker and not foreign and (not visible or any(map(outputs.is_own, visible))):
        return
    found = f"made by {marker['command']}" if "command" in marker else f"not made by {outputs.command}"
    held = (foreign or [path.name for path in visible] or [MARKER])[0]
    raise ValueError(
        f"{directory} is {found} and holds {held!r}; choose another output_dir, "
        "or overwrite=true to write into it all the same"
    )


def claim_output_dir(directory: Path, outputs: Outputs, identity: Mapping[str, Any] | None = None) -> None:
    """Make a directory that `check_output_dir` has let pass, and mark it as the command's.

    Args:
        identity: what defines the run (JSON values), for who reads the marker.
    """
    marker = {
        "command": outputs.command,
        "command_line": command_line(),
        "code": code_version(),
        "identity": dict(identity or {}),
    }
    _write_json(directory / MARKER, marker)


@contextmanager
def locked_output_dir(directory: Path, outputs: Outputs, *, overwrite: bool = False) -> Iterator[None]:
    """`check_output_dir`, for this process alone until the end. The lock of a process that is dead does not count.

    Raises:
        ValueError: see `check_output_dir`.
        RuntimeError: if another process has the directory. The message names it.
    """
    check_output_dir(directory, outputs, overwrite=overwrite)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RuntimeError(
            f"{directory} is in use by {_holder(directory)}; wait for its end, or choose another output_dir"
        ) from error
    try:
        mine = {"process": os.getpid(), "host": socket.gethostname(), "command": outputs.command}
        _write_json(directory / HOLDER, mine)
        yield
    finally:
        (directory / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(directory: Path) -> str:
    """Who holds a directory's lock, in words. A holder writes its name right after it has taken the lock."""
    end = time.monotonic() + SECONDS_TO_SAY_WHO
    while time.monotonic() < end:
        held = _read_json(directory / HOLDER)
        if "process" in held and (held.get("host") != socket.gethostname() or _is_alive(held["process"])):
            return f"process {held['process']} on {held.get('host')} ({held.get('command')})"
        time.sleep(0.02)
    return "another process"


def _is_alive(process: Any) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, TypeError, OverflowError):
        return False
    return True


def _is_written_by(outputs: Outputs, name: str) -> bool:
    return any(fnmatchcase(name, pattern) or is_temporary(Path(name), pattern) for pattern in outputs.names)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
