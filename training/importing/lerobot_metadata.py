"""Metadata of LeRobot datasets: which columns there are, and in which rows of which table an episode is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from policy.task import FASTEST, SLOWEST
from policy.task_parts import LONGEST_SIDE, MOST_NUMBERS
from training.importing.parquet_rows import TableError, TableReader
from training.importing.recording import RecordingError, one_line

VERSIONS = ("v2.1", "v3.0")
PICTURES = ("image", "video")
MOST_EPISODES = 1_000_000
MOST_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A column.

    Attributes:
        kind: its type as the metadata name it, such as ``float32`` or ``video``.
        names: of the numbers of a row.
        size: height and width of its pictures in px, if it has some.
    """

    kind: str
    names: tuple[str, ...]
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where an episode is.

    Attributes:
        table: path below the dataset.
        first: row of that table.
        count: rows.
        alone: whether the table has no other rows.
    """

    table: str
    first: int
    count: int
    alone: bool


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What `meta/` says.

    Attributes:
        path: of the dataset.
        file: that errors name.
        rate: in Hz.
        episodes: by their index; None for one of which the metadata know no more than that it should be there.
        info: content of `meta/info.json`.
    """

    path: Path
    file: Path
    version: str
    rate: float
    features: Mapping[str, Feature]
    episodes: Mapping[int, Rows | None]
    info: Mapping[str, Any]


def read_metadata(path: Path) -> Metadata:
    """Read the metadata of a dataset.

    Raises:
        RecordingError: for a file that is missing or damaged, another version, or values that cannot be.
    """
    file = path / "meta" / "info.json"
    info = _json(file, _text(file))
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise RecordingError(f"{file}: version {version!r:.40} is unknown, known are {', '.join(VERSIONS)}")
    rate = info.get("fps")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not SLOWEST <= rate <= FASTEST:
        raise RecordingError(f"{file}: fps must be in {SLOWEST:g} … {FASTEST:g}, got {rate!r:.40}")
    features = info.get("features")
    if not isinstance(features, dict):
        raise RecordingError(f"{file}: features must be an object, got {features!r:.40}")
    episodes = (_rows_2 if version == "v2.1" else _rows_3)(path, info)
    total = whole(file, "total_episodes", info.get("total_episodes"))
    return Metadata(
        path=path,
        file=file,
        version=version,
        rate=float(rate),
        features={name: _feature(file, name, feature) for name, feature in features.items()},
        episodes={index: episodes.get(index) for index in sorted({*episodes, *range(total)})},
        info=info,
    )


def _feature(file: Path, name: str, values: Any) -> Feature:
    kind = values.get("dtype") if isinstance(values, dict) else None
    shape = values.get("shape") if isinstance(values, dict) else None
    if not isinstance(kind, str) or not isinstance(shape, list):
        raise RecordingError(f"{file}: feature {name!r:.100} must have a dtype and a shape")
    if kind in PICTURES:
        return Feature(kind=kind, names=(), size=_picture_size(shape, values.get("names")))
    if kind in ("string", "language"):  # of no number that is imported
        return Feature(kind=kind, names=())
    if not all(type(size) is int and size > 0 for size in shape) or math.prod(shape) > MOST_NUMBERS:
        raise RecordingError(
            f"{file}: feature {name!r:.100} has the shape {shape!r:.60}, allowed are at most {MOST_NUMBERS} numbers"
        )
    size = math.prod(shape)
    names = tuple(_flat(values.get("names")))
    if len(names) != size or len(set(names)) != size or "" in names:
        names = tuple(map(str, range(size)))
    return Feature(kind=kind, names=names)


def _picture_size(shape: list[Any], names: Any) -> tuple[int, int] | None:
    """Height and width of colour pictures, whose channels may come first; None for others."""
    if len(shape) != 3 or not all(type(side) is int and 0 < side <= LONGEST_SIDE for side in shape):
        return None
    first = str(names[0]).startswith("channel") if isinstance(names, list) and names else shape[2] != 3
    channels, height, width = shape if first else (shape[2], *shape[:2])
    return (height, width) if channels == 3 else None


def _flat(names: Any) -> Iterator[str]:
    """Names out of a list, a list of lists, or an object that holds lists or each name's index."""
    if isinstance(names, str):
        yield names[:200]
    elif isinstance(names, list):
        for name in names:
            yield from _flat(name)
    elif isinstance(names, dict):
        if all(type(index) is int for index in names.values()):
            yield from sorted(names, key=lambda name: names[name])
        else:
            yield from _flat(list(names.values()))


def _rows_2(path: Path, info: Mapping[str, Any]) -> dict[int, Rows | None]:
    """Episodes of v2.1: `meta/episodes.jsonl`, and a table for each."""
    file = path / "meta" / "episodes.jsonl"
    chunk = chunks_size(path, info)
    rows: dict[int, Rows | None] = {}
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        values = _json(file, line, f" line {number}")
        index = whole(file, f"line {number}: episode_index", values.get("episode_index"))
        length = whole(file, f"line {number}: length", values.get("length"))
        table = _table(path, info, {"episode_chunk": index // chunk, "episode_index": index})
        _add(rows, index, Rows(table=table, first=0, count=length, alone=True), file=file)
    return rows


def _rows_3(path: Path, info: Mapping[str, Any]) -> dict[int, Rows | None]:
    """Episodes of v3.0: `meta/episodes/`, tables themselves, and tables of many episodes."""
    folder = path / "meta" / "episodes"
    columns = (
        *("episode_index", "data/chunk_index", "data/file_index"),
        *("dataset_from_index", "dataset_to_index", "length"),
    )
    found: list[tuple[int, str, int, int]] = []
    for file, row in episode_rows(path, columns):
        index, chunk, number, first, end, length = (
            whole(file, name, value) for name, value in zip(columns, row, strict=True)
        )
        if end - first != length:
            raise RecordingError(
                f"{file}: episode {index} has length {length}, but the rows {first} … {end - 1}"
            )
        found.append((index, _table(path, info, {"chunk_index": chunk, "file_index": number}), first, length))
    begins: dict[str, int] = {}
    for _, table, first, _ in found:
        begins[table] = min(first, begins.get(table, first))
    rows: dict[int, Rows | None] = {}
    for index, table, first, length in found:
        _add(
            rows,
            index,
            Rows(table=table, first=first - begins[table], count=length, alone=False),
            file=folder,
        )
    return rows


def episode_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[Path, tuple[float, ...]]]:
    """Each row of some columns of v3.0's tables of episodes, with its file. Raises RecordingError."""
    folder = path / "meta" / "episodes"
    files = sorted(folder.glob("*/*.parquet"))
    if not files:
        raise RecordingError(f"{folder}: no tables of episodes")
    reader = TableReader(dict.fromkeys(columns, 1))
    for file in files:
        try:
            count = reader.row_count(file)
            if not 0 < count <= MOST_EPISODES:
                raise TableError(f"has {count} episodes, allowed are 1 … {MOST_EPISODES}")
            values = reader.rows(file, first=0, count=count)
        except TableError as error:
            raise RecordingError(f"{file}: {error}") from error
        for row in zip(*(values[name][:, 0].tolist() for name in columns), strict=True):
            yield file, row


def _add(rows: dict[int, Rows | None], index: int, found: Rows, *, file: Path) -> None:
    if index in rows:
        raise RecordingError(f"{file}: episode {index} is there twice")
    if len(rows) >= MOST_EPISODES:
        raise RecordingError(f"{file}: more than {MOST_EPISODES} episodes")
    rows[index] = found


def _table(path: Path, info: Mapping[str, Any], values: Mapping[str, int]) -> str:
    """Path of a table below the dataset."""
    return templated_path(path, info, "data_path", values=values)


def templated_path(path: Path, info: Mapping[str, Any], key: str, *, values: Mapping[str, int | str]) -> str:
    """Path of a file below the dataset, by a template that the metadata give.

    Raises:
        RecordingError: for a template that is missing, has other names, or leads out of the dataset.
    """
    file, template = path / "meta" / "info.json", info.get(key)
    if not isinstance(template, str) or len(template) > 200:
        raise RecordingError(f"{file}: {key} must be a text, got {template!r:.40}")

    def value(field: re.Match[str]) -> str:
        if field[1] not in values:
            raise RecordingError(f"{file}: {key} has {field[0]}, allowed are {', '.join(values)}")
        found = values[field[1]]
        return found if isinstance(found, str) else f"{found:0{int(field[2] or 0)}d}"

    below = re.sub(r"\{(\w+)(?::0?(\d{1,2})d)?\}", value, template)
    parts = PurePosixPath(below).parts
    if not parts or ".." in parts or PurePosixPath(below).is_absolute():
        raise RecordingError(f"{file}: {key} {template!r} leads out of the dataset")
    return below


def chunks_size(path: Path, info: Mapping[str, Any]) -> int:
    """Episodes of v2.1 that share a folder."""
    return max(1, whole(path / "meta" / "info.json", "chunks_size", info.get("chunks_size", 1000)))


def whole(file: Path, key: str, value: Any) -> int:
    """A number without fraction from 0 on; some datasets write it as 3.0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 2**53 or value != int(value):
        raise RecordingError(f"{file}: {key} must be a whole number, got {value!r:.40}")
    if key == "total_episodes" and value > MOST_EPISODES:
        raise RecordingError(f"{file}: {key} is {value}, at most {MOST_EPISODES} are allowed")
    return int(value)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise RecordingError(f"{file}: no such file, of a LeRobot dataset") from None
    except OSError as error:
        raise RecordingError(f"{file}: cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_BYTES:
        raise RecordingError(f"{file}: more than {MOST_BYTES >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RecordingError(f"{file}: not a text: {one_line(error)}") from error


def _json(file: Path, text: str, where: str = "") -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{file}:{where} not JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise RecordingError(f"{file}:{where} must be an object, got {values!r:.40}")
    return values
