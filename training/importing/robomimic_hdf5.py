"""HDF5 files of robomimic: `data/<demo>/obs/<key>` and `data/<demo>/actions`.

Source: robomimic, docs/datasets/overview. A file of robosuite has no observations until robomimic's
`dataset_states_to_obs` has added them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from policy.task import FASTEST, SLOWEST
from policy.task_parts import MOST_NUMBERS
from training.importing.hdf5_pictures import DAMAGED, is_picture, opened, pictures
from training.importing.recording import (
    Advance,
    Choice,
    Episode,
    EpisodeError,
    Recording,
    RecordingError,
    chosen_columns,
    finite_float32,
    make_task,
    one_line,
)

MOST_EPISODES = 1_000_000


class _ColumnError(ValueError):
    """A dataset that cannot be read. The message names it and lacks the file and the episode."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """What each row of an episode holds.

    Attributes:
        observed: numbers of each key of `obs`.
        action: numbers of the actions.
        pictures: height and width of each key of `obs` that holds pictures.
        left_out: keys of `obs` that are neither, with what they are.
    """

    observed: Mapping[str, int]
    pictures: Mapping[str, tuple[int, int]]
    action: int
    left_out: Mapping[str, str]


def open_hdf5(path: Path, choice: Choice) -> Recording:
    """Open a file.

    Raises:
        RecordingError: for a file that is missing or damaged, has no episode with observations, lacks a column
            or the rate, or has another one.
    """
    action = choice.actions or "actions"
    try:
        with opened(path) as file:
            names, rate = _episodes(path, file), _rate(path, file, choice.rate)
            layout = _first_layout(path, file, names, action=action)
    except RecordingError:
        raise
    except DAMAGED as error:
        raise RecordingError(f"{path}: damaged: {one_line(error)}") from error
    columns = chosen_columns(
        list(layout.observed), choice.parts, pictures=list(layout.pictures), source=str(path)
    )
    cameras = {
        part: choice.image_size or layout.pictures[key]
        for part, key in columns.items()
        if key in layout.pictures
    }
    task = make_task(
        choice.name or path.stem,
        rate=rate,
        parts={part: cameras.get(part) or _names(layout.observed[key]) for part, key in columns.items()},
        action=_names(layout.action),
        source=str(path),
    )

    def read(index: int, advance: Advance) -> Iterator[Episode]:
        try:
            with opened(path) as file:
                episode = _episode(path, file, names[index], columns=columns, action=action, layout=layout)
        except (RecordingError, EpisodeError):
            raise
        except DAMAGED as error:
            raise EpisodeError(f"{path}: episode {names[index]}: damaged: {one_line(error)}") from error
        counters: dict[str, Counter[str]] = {part: Counter() for part in cameras}
        steps = len(episode.actions)
        yield replace(
            episode,
            pictures={
                part: pictures(
                    path,
                    f"data/{names[index]}/obs/{columns[part]}",
                    size=size,
                    steps=steps,
                    counter=counters[part],
                )
                for part, size in cameras.items()
            },
            frames=counters,
        )

    return Recording(
        path=path,
        format="HDF5 of robomimic",
        task=task,
        episodes=names,
        read=read,
        left_out=[
            *(f"{key} ({reason})" for key, reason in layout.left_out.items()),
            *(
                f"{key} ({'×'.join(map(str, size))}×3 uint8)"
                for key, size in layout.pictures.items()
                if key not in columns.values()
            ),
            *(f"{key} (not chosen)" for key in layout.observed if key not in columns.values()),
        ],
    )


def _episodes(path: Path, file: Any) -> list[str]:
    """Names of the episodes; demo_2 comes before demo_10."""
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        raise RecordingError(
            f"{path}: group data is missing, there are {', '.join(map(str, file)) or 'none'}"
        )
    names = [str(name) for name in data]
    if not 1 <= len(names) <= MOST_EPISODES:
        raise RecordingError(f"{path}: group data has {len(names)} episodes, allowed are 1 … {MOST_EPISODES}")
    return sorted(names, key=lambda name: [int(word) if word.isdigit() else -1 for word in _words(name)])


def _words(name: str) -> list[str]:
    return re.findall(r"\d+|\D+", name)


def _rate(path: Path, file: Any, wanted: float | None) -> float:
    """The rate in Hz: as the environment's arguments say, or as it is wanted."""
    said: object = None
    with suppress(*DAMAGED, RecursionError):
        said = json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"]
    if isinstance(said, bool) or not isinstance(said, int | float) or not SLOWEST <= said <= FASTEST:
        if wanted is None:
            raise RecordingError(f"{path}: env_args say no control_freq; rate=… (Hz) is required")
        return wanted
    if wanted is not None and wanted != said:
        raise RecordingError(f"{path}: env_args say control_freq {said:g}, rate={wanted:g} cannot be kept")
    return float(said)


def _first_layout(path: Path, file: Any, names: list[str], *, action: str) -> _Layout:
    """The layout of the first episode that has one."""
    first: _ColumnError | None = None
    for name in names:
        try:
            return _layout(file, name, action)
        except _ColumnError as error:  # noqa: PERF203
            first = first or error
    raise RecordingError(f"{path}: episode {names[0]}: {first}")


def _layout(file: Any, name: str, action: str) -> _Layout:
    group = _member(file, f"data/{name}")
    observed, pictures, left_out = {}, {}, {}
    if not isinstance(_member(group, "obs", required=False), h5py.Group):
        raise _ColumnError(
            f"no group obs, there are {', '.join(map(str, group)) or 'none'} "
            "(raw robosuite? robomimic's dataset_states_to_obs adds observations)"
        )
    for key in group["obs"]:
        dataset = _member(group, f"obs/{key}")
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
            left_out[key] = "no numbers"
        elif is_picture(dataset):
            pictures[key] = int(dataset.shape[1]), int(dataset.shape[2])
        elif dataset.ndim not in (1, 2) or not 1 <= _width(dataset) <= MOST_NUMBERS:
            left_out[key] = f"{'×'.join(map(str, dataset.shape[1:]))} {dataset.dtype}"
        else:
            observed[key] = _width(dataset)
    dataset = _member(group, action)
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype.kind not in "fiub"
        or dataset.ndim not in (1, 2)
    ):
        raise _ColumnError(f"{action} is no table of numbers")
    return _Layout(observed=observed, pictures=pictures, action=_width(dataset), left_out=left_out)


def _episode(
    path: Path, file: Any, name: str, *, columns: Mapping[str, str], action: str, layout: _Layout
) -> Episode:
    where = f"{path}: episode {name}"
    try:
        group = _member(file, f"data/{name}")
        steps = _steps(group, action)
        actions = _table(group, action, steps=steps, size=layout.action)
        observed = {
            part: _table(group, f"obs/{key}", steps=steps, size=layout.observed[key])
            for part, key in columns.items()
            if key not in layout.pictures
        }
        for key in layout.pictures.keys() & set(columns.values()):
            dataset = _member(group, f"obs/{key}")
            if not is_picture(dataset) or dataset.shape[0] != steps:
                shape = getattr(dataset, "shape", "none")
                raise _ColumnError(f"obs/{key} has the shape {shape}, need pictures ({steps}, h, w, 3)")
    except _ColumnError as error:
        raise EpisodeError(f"{where}: {error}") from error
    parts = {
        part: finite_float32(values, f"{where}: obs/{columns[part]}", _names(values.shape[1]))
        for part, values in observed.items()
    }
    return Episode(
        name=name,
        parts=parts,
        actions=finite_float32(actions, f"{where}: {action}", _names(actions.shape[1])),
    )


def _steps(group: Any, action: str) -> int:
    """Steps of an episode, as its actions have them and its attribute says."""
    dataset = _member(group, action)
    if not isinstance(dataset, h5py.Dataset) or not dataset.ndim:
        raise _ColumnError(f"{action} is no table of numbers")
    steps = int(dataset.shape[0])
    if not steps:
        raise _ColumnError(f"{action} is empty")
    try:
        said = int(group.attrs.get("num_samples", steps))
    except (*DAMAGED, OverflowError) as error:
        raise _ColumnError(f"num_samples cannot be read: {one_line(error)}") from error
    if said != steps:
        raise _ColumnError(f"{action} has {steps} steps, num_samples says {said}")
    return steps


def _table(group: Any, key: str, *, steps: int, size: int) -> NDArray:
    """A dataset as (steps, size)."""
    dataset = _member(group, key)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise _ColumnError(f"{key} holds {getattr(dataset, 'dtype', 'a group')}, allowed are numbers")
    if dataset.ndim not in (1, 2) or dataset.shape[0] != steps or _width(dataset) != size:
        raise _ColumnError(f"{key} has the shape {dataset.shape}, need ({steps}, {size})")
    try:
        return np.asarray(dataset[()]).reshape(steps, size)
    except DAMAGED as error:
        raise _ColumnError(f"{key} cannot be read: {one_line(error)}") from error


def _member(group: Any, key: str, *, required: bool = True) -> Any:
    try:
        found = group.get(key)
    except DAMAGED as error:
        raise _ColumnError(f"{key} cannot be read: {one_line(error)}") from error
    if found is None and required:
        around = group.get(key.rpartition("/")[0] or ".")
        there = ", ".join(map(str, around)) if isinstance(around, h5py.Group) else ""
        raise _ColumnError(f"{key} is missing, there are {there or 'none'}")
    return found


def _names(size: int) -> tuple[str, ...]:
    """Names of numbers that have none."""
    return tuple(map(str, range(size)))


def _width(dataset: Any) -> int:
    return math.prod(dataset.shape[1:])
