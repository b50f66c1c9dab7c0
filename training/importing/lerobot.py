"""LeRobot datasets of the versions v2.1 and v3.0, read without the package `lerobot`.

Source: the layouts that huggingface/lerobot writes. v2.1 has a table for each episode, v3.0 tables of many episodes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.importing.lerobot_metadata import Metadata, Rows, read_metadata
from training.importing.lerobot_pictures import picture_reader
from training.importing.parquet_rows import TableError, TableReader
from training.importing.recording import (
    Advance,
    Choice,
    Episode,
    EpisodeError,
    Recording,
    RecordingError,
    check_times,
    chosen_columns,
    finite_float32,
    make_task,
)

NUMBERS = re.compile(r"float\d+|u?int\d+|bool")
# Which row it is. A dataset names those that it has.
EPISODE, FRAME, TIME = "episode_index", "frame_index", "timestamp"


def open_lerobot(path: Path, choice: Choice) -> Recording:
    """Open a dataset.

    Raises:
        RecordingError: for metadata that are missing, damaged or of another version, columns that are not there, or
            another rate.
    """
    metadata = read_metadata(path)
    features, source = metadata.features, str(metadata.file)
    numbers = [name for name, feature in features.items() if NUMBERS.fullmatch(feature.kind)]
    action = choice.actions or "action"
    if action not in numbers:
        raise RecordingError(f"{source}: no column {action!r} of numbers, there are {', '.join(numbers)}")
    observed = [name for name in features if name.startswith("observation.")]
    pictures = [name for name in observed if features[name].size is not None]
    columns = chosen_columns(
        [name for name in observed if name in numbers], choice.parts, pictures=pictures, source=source
    )
    sizes = {
        column: choice.image_size or size
        for column in columns.values()
        if (size := features[column].size) is not None
    }
    if choice.rate is not None and choice.rate != metadata.rate:
        raise RecordingError(f"{source}: fps is {metadata.rate:g}, rate={choice.rate:g} cannot be kept")
    task = make_task(
        choice.name or path.resolve().name,
        rate=metadata.rate,
        parts={part: sizes.get(column, features[column].names) for part, column in columns.items()},
        action=features[action].names,
        source=source,
    )
    return Recording(
        path=path,
        format=f"LeRobot {metadata.version}",
        task=task,
        episodes=[str(index) for index in metadata.episodes],
        read=_Reader(metadata, columns, action=action, sizes=sizes).read,
        left_out=[f"{name} ({features[name].kind})" for name in observed if name not in columns.values()],
    )


class _Reader:
    """Reads a dataset's episodes; in order, no row is decoded twice."""

    def __init__(
        self,
        metadata: Metadata,
        columns: Mapping[str, str],
        *,
        action: str,
        sizes: Mapping[str, tuple[int, int]],
    ) -> None:
        self._metadata = metadata
        self._columns = {part: column for part, column in columns.items() if column not in sizes}
        self._cameras = {
            part: picture_reader(metadata, column, sizes[column])
            for part, column in columns.items()
            if column in sizes
        }
        self._action = action
        self._rows = list(metadata.episodes.items())
        rows = [name for name in (EPISODE, FRAME, TIME) if name in metadata.features]
        read = dict.fromkeys((*self._columns.values(), action, *rows))
        self._tables = TableReader({name: len(metadata.features[name].names) for name in read})

    def read(self, index: int, advance: Advance) -> Iterator[Episode]:
        episode, rows = self._rows[index]
        if rows is None:
            raise EpisodeError(
                f"{self._metadata.file}: episode {episode} of {len(self._rows)} is not in the list of episodes"
            )
        table = self._metadata.path / rows.table
        where = f"{table}: episode {episode}"
        try:
            values = self._values(table, rows)
        except TableError as error:
            raise EpisodeError(f"{where}: {error}") from error
        self._check_rows(values, episode, where)
        times = np.arange(rows.count) / self._metadata.rate
        if TIME in values:
            times = values[TIME][:, 0].astype(np.float64)
        frames: dict[str, Counter[str]] = {part: Counter() for part in self._cameras}
        yield Episode(
            name=str(episode),
            parts={part: self._finite(values, column, where) for part, column in self._columns.items()},
            actions=self._finite(values, self._action, where),
            pictures={part: read(episode, times, frames[part]) for part, read in self._cameras.items()},
            frames=frames,
        )

    def _values(self, table: Path, rows: Rows) -> dict[str, NDArray]:
        if rows.alone and (there := self._tables.row_count(table)) != rows.count:
            raise TableError(f"has {there} rows, the list of episodes says {rows.count}")
        return self._tables.rows(table, first=rows.first, count=rows.count)

    def _check_rows(self, values: Mapping[str, NDArray], episode: int, where: str) -> None:
        """Check that the rows are those of the episode, all of them, at the rate."""
        expected = {EPISODE: np.full(len(values[self._action]), episode)}
        expected[FRAME] = np.arange(len(values[self._action]))
        for name in (EPISODE, FRAME):
            if name in values and (wrong := np.flatnonzero(values[name][:, 0] != expected[name])).size:
                row = int(wrong[0])
                raise EpisodeError(
                    f"{where}: column {name!r} is {values[name][row, 0]:g} in row {row}, expected {expected[name][row]}"
                )
        if TIME in values:
            check_times(values[TIME][:, 0], self._metadata.rate, f"{where}: column {TIME!r}")

    def _finite(self, values: Mapping[str, NDArray], column: str, where: str) -> NDArray[np.float32]:
        names = self._metadata.features[column].names
        return finite_float32(values[column], f"{where}: column {column!r}", names)
