"""A task's YAML file: the task, and where its numbers are in a store that does not say it itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from policy.task import Task, TaskError, task_from_values
from policy.task_parts import ImagePart
from training.data.store_arrays import RowShape

SHIPPED = files("training.conf") / "tasks"
PART_KEYS, ACTION_KEYS = ("name", "names", "units"), ("names", "units", "lower", "upper")
IMAGE_KEYS, IMAGE_SOURCE_KEYS = ("kind", "name", "height", "width"), ("array",)
SOURCE_KEYS = ("array", "shape", "columns")


@dataclass(frozen=True)
class Columns:
    """Where the numbers of a part, its pictures, or the actions, are.

    Attributes:
        array: name of the array, such as ``data/state``.
        shape: shape that a row of it must have; None for any. Of pictures: height, width, 3.
        columns: which numbers of a flattened row; None for all.
    """

    array: str
    shape: RowShape = None
    columns: tuple[int, ...] | None = None


@dataclass(frozen=True)
class StoredTask:
    """A task, and where in a store each of its parts, in their order, and its actions are."""

    task: Task
    parts: tuple[Columns, ...]
    action: Columns


def self_described(task: Task) -> StoredTask:
    """A task in a store that `write_demonstrations` has written: an array for each part."""
    parts = tuple(
        Columns(f"data/{part.name}", part.shape if isinstance(part, ImagePart) else (part.size,))
        for part in task.observation
    )
    return StoredTask(task, parts, Columns("data/action", (task.action_dim,)))


def shipped_tasks() -> tuple[str, ...]:
    """Names of the tasks that need no file of the user's."""
    names = (entry.name for entry in SHIPPED.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_task(name: str) -> StoredTask:
    """A task by the name of a shipped one, such as ``pusht``, or by the path of a YAML file.

    Raises:
        TaskError: for a task that is not shipped, or a file that cannot be read or describes none. The message names
            the file and the key.
    """
    if name in shipped_tasks():
        return _stored_task(f"{name}.yaml", (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8"))
    if not name.endswith((".yaml", ".yml")):
        raise TaskError(f"task must be {' or '.join(shipped_tasks())}, or a file *.yaml, got {name!r}")
    try:
        return _stored_task(name, Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise TaskError(f"{name}: {error.strerror}") from error


def _stored_task(name: str, text: str) -> StoredTask:
    try:
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
        return _from_values(values)
    except TaskError as error:
        raise TaskError(f"{name}: {error}") from error
    # OmegaConf's errors, those of its YAML library, and what broken text makes of both.
    except Exception as error:
        said = " ".join(str(error).split())
        raise TaskError(f"{name}: not the YAML of a task ({said:.200})") from error


def _from_values(values: Any) -> StoredTask:
    if not isinstance(values, dict) or not isinstance(values.get("observation"), list):
        raise TaskError("expected the keys name, rate, observation (a list of parts) and action")
    described: list[dict[str, Any]] = []
    parts: list[Columns] = []
    for index, part in enumerate(values["observation"]):
        where = f"observation[{index}]"
        if isinstance(part, dict) and part.get("kind") == "image":
            keys, columns = _split(where, part, IMAGE_KEYS, source_keys=IMAGE_SOURCE_KEYS)
            described.append(keys)
        else:
            keys, columns = _split(where, part, ("kind", *PART_KEYS))
            described.append({"kind": "vector", **_with_units(keys)})
        parts.append(columns)
    keys, action = _split("action", values.get("action"), ACTION_KEYS)
    keys = _with_units(keys)
    for limit in ("lower", "upper"):
        keys[limit] = _for_each(keys.get(limit), keys)
    task = task_from_values({**values, "observation": described, "action": keys})
    sized: list[tuple[int, Columns, str]] = []
    for index, part in enumerate(task.observation):
        if isinstance(part, ImagePart):
            parts[index] = replace(parts[index], shape=part.shape)
        else:
            sized.append((part.size, parts[index], part.name))
    for size, columns, name in (*sized, (task.action_dim, action, "action")):
        if columns.columns is not None and len(columns.columns) != size:
            raise TaskError(f"{name}: {size} names need as many columns, got {len(columns.columns)}")
    return StoredTask(task, tuple(parts), action)


def _split(
    where: str, values: Any, names: tuple[str, ...], *, source_keys: tuple[str, ...] = SOURCE_KEYS
) -> tuple[dict[str, Any], Columns]:
    """What belongs to the task, and where it is in the store."""
    if not isinstance(values, dict):
        raise TaskError(f"{where} must have the keys array, {', '.join(names)}, got {values!r:.100}")
    for key in values:
        if key not in (*names, *source_keys):
            allowed = ", ".join((*names, *source_keys))
            raise TaskError(f"{where}: unknown key {key!r}, must be among {allowed}")
    array = values.get("array")
    if not isinstance(array, str) or not array or set(array) & set("/\\") or array.startswith("."):
        raise TaskError(f"{where}: array must name an array of the group data, such as state, got {array!r}")
    shape, columns = _whole(where, "shape", values), _whole(where, "columns", values)
    return (
        {key: value for key, value in values.items() if key in names},
        Columns(f"data/{array}", shape, columns),
    )


def _whole(where: str, key: str, values: Mapping[str, Any]) -> tuple[int, ...] | None:
    numbers = values.get(key)
    if numbers is None:
        return None
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise TaskError(f"{where}: {key} must be a list of whole numbers from 0 on, got {numbers!r:.100}")
    return tuple(numbers)


def _with_units(keys: dict[str, Any]) -> dict[str, Any]:
    return {**keys, "units": _for_each(keys["units"], keys)} if "units" in keys else dict(keys)


def _for_each(value: Any, keys: Mapping[str, Any]) -> Any:
    """One value for all numbers, as a list; a list as it is."""
    names = keys.get("names")
    return value if isinstance(value, list) or not isinstance(names, list) else [value] * len(names)
