"""What a recording gives, whoever wrote it: a task, and episodes as numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from policy.robot.pictures import Picture
from policy.task import Command, ImagePart, Part, Task, TaskError


class RecordingError(ValueError):
    """A recording of which nothing can be imported. The message names the file, and what is allowed."""


class EpisodeError(ValueError):
    """An episode that cannot be imported; others may be. The message names the file, the episode and the column.

    Attributes:
        name: of the episode.
    """

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One demonstration.

    Attributes:
        name: as its recording calls it.
        parts: vectors of the observation by name, each (n, d) float32.
        actions: (n, A) float32.
        pictures: of each camera by its part's name: n pictures (height, width, 3), read as they are asked for, in the
            size of the part. Asking raises EpisodeError.
        frames: of each camera, what became of its recorded frames; counted while its pictures are asked for.
    """

    name: str
    parts: Mapping[str, NDArray[np.float32]]
    actions: NDArray[np.float32]
    pictures: Mapping[str, Iterable[Picture]] = field(default_factory=dict)
    frames: Mapping[str, Counter[str]] = field(default_factory=dict)

    @property
    def observations(self) -> NDArray[np.float32]:
        """(n, D) all vectors."""
        nothing = np.empty((len(self.actions), 0), np.float32)
        return np.concatenate([nothing, *self.parts.values()], axis=1)


@dataclass(frozen=True)
class Dropped:
    """What an episode lacks, or a piece that is too short to be one.

    Attributes:
        name: of the recorded episode, then ``#`` and what.
        reason: why.
    """

    name: str
    reason: str


Item: TypeAlias = Episode | EpisodeError | Dropped
"""What reading gives. An `EpisodeError` is one after which the next episode can still be read."""

Advance: TypeAlias = Callable[[float], None]
"""Is told each share of an episode that has been read."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that was opened.

    Attributes:
        path: file or folder.
        format: its name for people, such as ``LeRobot v2.1``.
        task: what was observed and commanded.
        episodes: names of the recorded episodes: tables, groups or bags.
        read: function (index of a name, advance) → one episode of that name, or several where a bag is cut, each
            with ``#`` and a number behind the name. It raises EpisodeError if there is no going on in it.
        left_out: what is in the recording and not imported, each with the reason.
    """

    path: Path
    format: str
    task: Task
    episodes: Sequence[str]
    read: Callable[[int, Advance], Iterator[Item]]
    left_out: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a recording is wanted.

    Attributes:
        name: of the task; empty for the name of the source.
        parts: what becomes a part of the observation, named as in the recording or as the part; empty for all numbers.
        actions: column of the actions, or for bags, where they come from; empty for the format's own.
        rate: control steps a second, in Hz, for a recording that does not say.
        robot: for bags, the robot's file.
        split: for bags, where they are cut.
        image_size: height and width of all pictures, in px; None for the recording's own.
    """

    name: str = ""
    parts: tuple[str, ...] = ()
    actions: str = ""
    rate: float | None = None
    robot: str = ""
    split: str = "none"
    image_size: tuple[int, int] | None = None


USED, UNUSED, REPEATED = "used", "unused", "repeated"
"""What becomes of a recorded frame: the picture of a step, none, or again the picture of the next one."""


def count_frames(counter: Counter[str], numbers: Sequence[int], *, read: int) -> None:
    """Count what became of frames.

    Args:
        numbers: of the frame that each step shows, in their order.
        read: frames that were there.
    """
    used = len(set(numbers))
    counter.update({USED: used, UNUSED: read - used, REPEATED: len(numbers) - used})


def make_task(
    name: str,
    *,
    rate: float,
    parts: Mapping[str, Sequence[str] | tuple[int, int]],
    action: Sequence[str],
    source: str,
) -> Task:
    """A task without units or limits, which tables of numbers do not say.

    Args:
        parts: names of each part's numbers, or height and width of its pictures.
        action: names of the commanded numbers.
        source: for messages.

    Raises:
        RecordingError: for names that make no task.
    """
    unknown = (None,) * len(action)
    try:
        return Task(
            name=name,
            rate=rate,
            observation=tuple(_part(part, described) for part, described in parts.items()),
            action=Command(names=tuple(action), units=("",) * len(action), lower=unknown, upper=unknown),
        )
    except TaskError as error:
        raise RecordingError(f"{source}: {error}") from error


def _part(name: str, described: Sequence[str] | tuple[int, int]) -> Part | ImagePart:
    if all(isinstance(value, int) for value in described):
        height, width = described
        return ImagePart(name=name, height=int(height), width=int(width))
    names = tuple(map(str, described))
    return Part(name=name, names=names, units=("",) * len(names))


def part_name(column: str) -> str:
    """A column's name as a part's, such as ``left_arm`` for ``left.arm``."""
    letters = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in column)
    return letters if letters.isidentifier() else f"part_{letters}"


def chosen_columns(
    columns: Sequence[str], wanted: Sequence[str], *, pictures: Sequence[str] = (), source: str
) -> dict[str, str]:
    """The parts of an observation and their columns, in the order in which they are wanted.

    Args:
        columns: what can become a part of numbers.
        wanted: names of columns or parts; empty for all columns of numbers.
        pictures: columns that can become a part of pictures.
        source: for messages, such as ``koch: meta/info.json``.

    Raises:
        RecordingError: for a part that is not there, no part at all, or two columns that make the same part.
    """
    by_part: dict[str, list[str]] = {}
    there = (*columns, *pictures)
    for column in there:
        by_part.setdefault(part_name(column.removeprefix("observation.")), []).append(column)
    chosen: dict[str, str] = {}
    for name in wanted or columns:
        part = part_name(name.removeprefix("observation."))
        found = [name] if name in there else by_part.get(part, [])
        if not found:
            raise RecordingError(f"{source}: no part {name!r}, there are {', '.join(there) or 'none'}")
        if part in chosen and chosen[part] == found[0]:
            raise RecordingError(f"{source}: parts=[…] names the part {part!r} twice")
        if len(found) > 1 or part in chosen:
            raise RecordingError(
                f"{source}: {' and '.join(by_part[part])} would both be the part {part!r}; choose by parts=[…]"
            )
        chosen[part] = found[0]
    if not chosen:
        raise RecordingError(f"{source}: no observation of numbers")
    return chosen


def finite_float32(values: NDArray, where: str, names: Sequence[str]) -> NDArray[np.float32]:
    """Values (n, d) as float32.

    Args:
        where: for messages: file, episode and column.
        names: (d,) of the columns' numbers.

    Raises:
        EpisodeError: for the first value that is not finite, or too large.
    """
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(converted))
    if bad.size:
        row, column = bad[0].tolist()
        raise EpisodeError(
            f"{where} is {values[row, column]} in row {row} ({names[column]}), allowed are finite float32 numbers"
        )
    return converted


def check_times(times: NDArray, rate: float, where: str) -> None:
    """Check that steps follow each other at the rate.

    Args:
        times: (n,) in s.
        where: for messages: file, episode and column.

    Raises:
        EpisodeError: for time that runs backwards, or a step half a period longer or shorter than the period.
    """
    times = np.asarray(times, dtype=np.float64)
    if not np.isfinite(times).all():
        raise EpisodeError(
            f"{where} is {times[~np.isfinite(times)][0]} in row {int(np.argmin(np.isfinite(times)))}"
        )
    steps = np.diff(times)
    backwards = np.flatnonzero(steps <= 0)
    if backwards.size:
        row = int(backwards[0]) + 1
        raise EpisodeError(
            f"{where} runs backwards: {times[row]:g} s in row {row} after {times[row - 1]:g} s"
        )
    uneven = np.flatnonzero(np.abs(steps * rate - 1) > 0.5)
    if uneven.size:
        row = int(uneven[0]) + 1
        raise EpisodeError(
            f"{where} does not keep {rate:g} Hz: {steps[row - 1]:.4g} s from row {row - 1} to row {row}, "
            f"allowed is {0.5 / rate:.3g} … {1.5 / rate:.3g} s"
        )


def one_line(error: BaseException) -> str:
    """What a library says of a damaged file, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
