"""Demonstrations of any task, read from a zarr store and checked.

The store has Diffusion Policy's layout: `data/<array>` (N, …), a row for each control step, and `meta/episode_ends`
(E,). Which arrays make which part is said by the store's attributes, or by a task's YAML file. Other arrays are never
read. Pictures stay on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from policy.task import Task, task_difference, task_from_values
from policy.task_parts import ImagePart, Part, TaskError
from training.data.array_hash import array_sha256
from training.data.pictures import Pictures
from training.data.store_arrays import (
    EPISODE_ENDS,
    RowShape,
    as_episode_ends,
    as_finite_float32,
    read_pictures,
    read_store,
)
from training.data.store_codecs import shortened
from training.data.store_files import StoreError
from training.data.task_file import Columns, StoredTask, load_task, self_described, shipped_tasks


class DemonstrationError(ValueError):
    """A store of demonstrations that cannot be used. The message names the file, the array and the index."""


@dataclass(frozen=True)
class Demonstrations:
    """All episodes in sequence; episode `i` has the steps `episode_ends[i - 1]:episode_ends[i]`.

    `with_features` makes observation rows of the observations, (N, D + F).
    """

    task: Task
    observations: np.ndarray  # (N, D) float32: the task's vectors in their order, in their units
    actions: np.ndarray  # (N, A) float32: what was commanded at each step
    episode_ends: np.ndarray  # (E,) int64: index one past each episode's last step
    sha256: str  # hash of the values that were read; independent of zarr format, chunks and compressor
    pictures: Mapping[str, Pictures] = field(
        default_factory=dict
    )  # of each picture of the task, by the part's name


def load_demonstrations(
    path: str | Path,
    *,
    task: str | None = None,
    policy_task: Task | None = None,
    pictures_folder: Path | None = None,
) -> Demonstrations:
    """Read a store: a zarr folder or a `.zarr.zip`, of zarr format 2 or 3.

    Args:
        task: how to read a store that does not say it itself: name of a shipped task or path of a YAML file.
        policy_task: task of the policy that the demonstrations are for, which they must fit. If nothing else says how
            to read the store and a task of that name is shipped, that one does.
        pictures_folder: where pictures are unpacked to, see `training.data.pictures`.

    Raises:
        DemonstrationError: when there is no such store, nothing says what its arrays are, or an array of it is missing,
            cannot be decoded, has another shape, another length, another hash than its attributes say, or a value that
            is not finite, or the episodes do not tile the steps. Also for demonstrations that do not fit the policy,
            and for a store that `check_store` refuses, of which nothing is decoded.
    """
    path = Path(path)
    stored: StoredTask | None = None

    def wanted(attributes: Mapping[str, Any]) -> Mapping[str, RowShape]:
        nonlocal stored
        stored = _stored_task(path, attributes, task=task, policy_task=policy_task)
        shapes: dict[str, RowShape] = {}
        vectors = [
            columns
            for part, columns in zip(stored.task.observation, stored.parts, strict=True)
            if isinstance(part, Part)
        ]
        for columns in (*vectors, stored.action):
            if shapes.setdefault(columns.array, columns.shape) is None:
                shapes[columns.array] = columns.shape
        return {**shapes, EPISODE_ENDS: ()}

    try:
        content = read_store(path, wanted)
        assert stored is not None
        arrays = _checked(path, content.arrays, content.attributes)
        observations = [
            _columns(path, arrays, columns, name=part.name, size=part.size)
            for part, columns in zip(stored.task.observation, stored.parts, strict=True)
            if isinstance(part, Part)
        ]
        actions = _columns(path, arrays, stored.action, name="action", size=stored.task.action_dim)
        pictures = _pictures(path, stored, content.attributes, steps=len(actions), folder=pictures_folder)
    except (StoreError, TaskError) as error:
        raise DemonstrationError(str(error)) from error
    hashes = {name: array_sha256(values) for name, values in arrays.items()}
    hashes |= {f"pictures/{name}": each.sha256 for name, each in pictures.items()}
    return Demonstrations(
        task=stored.task,
        observations=np.concatenate([np.zeros((len(actions), 0), np.float32), *observations], axis=1),
        actions=np.ascontiguousarray(actions),
        episode_ends=arrays[EPISODE_ENDS],
        sha256=hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest(),
        pictures=pictures,
    )


def _stored_task(
    path: Path, attributes: Mapping[str, Any], *, task: str | None, policy_task: Task | None
) -> StoredTask:
    own = attributes.get("task")
    if task is not None:
        stored = load_task(task)
    elif isinstance(own, str) and own in shipped_tasks():
        stored = load_task(own)
    elif own is not None:
        try:
            stored = self_described(task_from_values(own))
        except TaskError as error:
            raise StoreError(f"{path}: its attributes describe no task: {error}") from error
    elif policy_task is not None and policy_task.name in shipped_tasks():
        stored = load_task(policy_task.name)
    else:
        raise StoreError(
            f"{path}: its attributes do not say what its arrays are; "
            f"say it by task={'|'.join(shipped_tasks())} or task=FILE.yaml (docs/demonstrations.md)"
        )
    if policy_task is not None and (difference := task_difference(stored.task, policy_task)):
        raise StoreError(f"{path}: demonstrations do not fit the policy: {difference}")
    return stored


def _checked(
    path: Path, found: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The arrays as float32 and int64, all of the same length, with the hashes that the attributes name."""
    first, *others = (name for name in found if name != EPISODE_ENDS)
    num_steps = len(found[first])
    arrays = {}
    for name in (first, *others):
        if len(found[name]) != num_steps:
            raise StoreError(
                f"{path}: array {name} has {len(found[name])} steps, but {first} has {num_steps}"
            )
        arrays[name] = as_finite_float32(path, name, found[name])
    arrays[EPISODE_ENDS] = as_episode_ends(path, found[EPISODE_ENDS], num_steps)
    hashes = attributes.get("sha256", {})
    if not isinstance(hashes, Mapping):
        raise StoreError(f"{path}: its attribute sha256 is {shortened(hashes)}, expected hashes of arrays")
    for name, values in arrays.items():
        if name in hashes and array_sha256(values) != hashes[name]:
            raise StoreError(
                f"{path}: array {name} is damaged: its values have another hash than was written"
            )
    return arrays


def _pictures(
    path: Path,
    stored: StoredTask,
    attributes: Mapping[str, Any],
    *,
    steps: int,
    folder: Path | None,
) -> dict[str, Pictures]:
    """Pictures of the task's parts, as many as steps, with the hashes that the attributes name."""
    arrays = {
        part.name: (columns.array, part.shape)
        for part, columns in zip(stored.task.observation, stored.parts, strict=True)
        if isinstance(part, ImagePart)
    }
    if not arrays:
        return {}
    read = read_pictures(path, dict(arrays.values()), folder=folder)
    hashes = attributes.get("sha256", {})
    for name, found in read.items():
        if len(found) != steps:
            raise StoreError(f"{path}: array {name} has {len(found)} pictures, but there are {steps} steps")
        if name in hashes and found.sha256 != hashes[name]:
            raise StoreError(
                f"{path}: array {name} is damaged: its values have another hash than was written"
            )
    return {part: read[array] for part, (array, _) in arrays.items()}


def _columns(
    path: Path, arrays: Mapping[str, np.ndarray], columns: Columns, *, name: str, size: int
) -> np.ndarray:
    """The numbers (N, size) of a part, or the actions."""
    rows = arrays[columns.array].reshape(len(arrays[columns.array]), -1)
    chosen = range(rows.shape[1]) if columns.columns is None else columns.columns
    for column in chosen:
        if column >= rows.shape[1]:
            raise StoreError(
                f"{path}: {name} needs column {column} of array {columns.array}, which has {rows.shape[1]}"
            )
    if len(chosen) != size:
        raise StoreError(
            f"{path}: {name} has {size} names, but array {columns.array} has rows of {rows.shape[1]} numbers"
        )
    return rows if columns.columns is None else rows[:, list(chosen)]
