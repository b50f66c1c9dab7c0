"""What an import found and made, for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.task import Task
from training.data.store_files import folder_store, open_group
from training.importing.recording import Recording

MOST_LINES = 200
BLOCK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An import that has ended.

    Attributes:
        path: of the store.
        recording: what was read.
        ends: one past each episode's last step.
        dropped: name and reason of each recorded episode that was left out, or of what another one lacks.
    """

    path: Path
    recording: Recording
    ends: Sequence[int]
    dropped: Sequence[tuple[str, str]]

    @property
    def bad_episodes(self) -> int:
        """Recorded episodes that were left out."""
        recorded = frozenset(self.recording.episodes)
        return sum(is_episode(name, recorded) for name, _ in self.dropped)


def is_episode(name: str, episodes: Collection[str]) -> bool:
    """Whether a name is that of a whole episode: one that was recorded, or that a bag was cut into."""
    return name.rpartition("#")[2].isdigit() or name in episodes


def report(imported: Imported) -> str:
    """The report of an import, in lines."""
    return "\n".join(_lines(imported))


def _lines(imported: Imported) -> Iterator[str]:
    recording, task, ends = imported.recording, imported.recording.task, imported.ends
    lengths = np.diff(ends, prepend=0)
    yield f"{recording.path}: {recording.format}"
    each = f"{lengths.min()} … {lengths.max()}" if lengths.min() < lengths.max() else f"{lengths.min()}"
    yield (
        f"{_count(len(ends), 'episode')} of {each} steps, {ends[-1]} steps at {task.rate:g} Hz, "
        f"{ends[-1] / task.rate:.1f} s"
    )
    yield from _ranges(imported.path, task)
    for what in recording.left_out:
        yield f"left out: {what}"
    if gaps := sum(name.endswith(" gap") for name, _ in imported.dropped):
        yield _count(gaps, "gap")
    if imported.bad_episodes:
        yield f"{_count(imported.bad_episodes, 'episode')} could not be imported"
    yield from _some([f"dropped {name}: {reason}" for name, reason in imported.dropped], MOST_LINES // 20)
    yield f"written: {imported.path}"


def _ranges(path: Path, task: Task) -> Iterator[str]:
    """A line for each number: its range in the store. Memory is bounded."""
    group = open_group(folder_store(path, read_only=True), mode="r")
    names: list[str] = []
    units: list[str] = []
    lower: list[float] = []
    upper: list[float] = []
    columns = [(part.name, part.names, part.units) for part in task.vectors]
    for array, numbers, their_units in [*columns, ("action", task.action.names, task.action.units)]:
        smallest, largest = np.inf, -np.inf
        values = group[f"data/{array}"]
        for start in range(0, values.shape[0], BLOCK_ROWS):
            block = values[start : start + BLOCK_ROWS]
            smallest = np.minimum(smallest, block.min(axis=0))
            largest = np.maximum(largest, block.max(axis=0))
        names += [f"{array}.{number}" for number in numbers]
        units += their_units
        lower += np.atleast_1d(smallest).tolist()
        upper += np.atleast_1d(largest).tolist()
    width = max(map(len, names[:MOST_LINES]))
    lines = [
        f"  {name:{width}} {low:>10.4g} … {high:<10.4g} {unit if low < high else f'{unit} never varies'}".rstrip()
        for name, unit, low, high in zip(names, units, lower, upper, strict=True)
    ]
    yield from _some(lines, MOST_LINES)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(lines: Sequence[str], most: int) -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"  … and {len(lines) - most} more"
