"""A task: what a robot observes, what it is commanded, and how often.

Plain data. It travels in the attributes of demonstrations and in the header of a checkpoint, so that nobody states it
twice: the trainer takes it from the demonstrations, the robot from the checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MOST_PARTS, MOST_NUMBERS, LONGEST_NAME = 64, 65536, 200
FASTEST, SLOWEST = 10_000.0, 1e-3  # rates in Hz


class TaskError(ValueError):
    """A task that cannot be. The message names the key, and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One observed vector.

    Attributes:
        name: of the part; a source of the robot that fills it has the same.
        names: of its numbers, in order.
        units: one for each number; empty for a number without one.

    Raises:
        TaskError: for names that are empty or used twice, or units that are not as many.
    """

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name.isidentifier() and len(self.name) <= LONGEST_NAME):
            raise TaskError(f"name of a part must be a simple name, such as arm, got {self.name!r}")
        for key in ("names", "units"):
            object.__setattr__(self, key, _texts(self.name, key, getattr(self, key)))
        _check_names(self.name, self.names, self.units)

    @property
    def size(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Command:
    """The commanded vector.

    Attributes:
        names: of its numbers, in order.
        units: one for each number.
        lower, upper: limits of each number, in its unit; None where none is known.

    Raises:
        TaskError: for names that are empty or used twice, or limits that are not as many, not finite or contradict each
            other.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    lower: tuple[float | None, ...]
    upper: tuple[float | None, ...]

    def __post_init__(self) -> None:
        for key in ("names", "units"):
            object.__setattr__(self, key, _texts("action", key, getattr(self, key)))
        _check_names("action", self.names, self.units)
        for key in ("lower", "upper"):
            object.__setattr__(self, key, _limits(key, getattr(self, key), len(self.names)))
        for name, lower, upper in zip(self.names, self.lower, self.upper, strict=True):
            if lower is not None and upper is not None and lower >= upper:
                raise TaskError(
                    f"action: lower limit of {name!r} must be below its upper, got {lower}, {upper}"
                )

    @property
    def size(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is observed, what is commanded, at what rate.

    Attributes:
        name: of the task.
        rate: control steps a second, in Hz.
        observation: parts, in the order in which they make an observation.
        action: what is commanded.

    Raises:
        TaskError: for a rate that no robot has, no part, or parts of the same name.
    """

    name: str
    rate: float
    observation: tuple[Part, ...]
    action: Command

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and 0 < len(self.name) <= LONGEST_NAME):
            raise TaskError(f"name of a task must be a text, got {self.name!r}")
        rate = self.rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not SLOWEST <= rate <= FASTEST:
            raise TaskError(f"rate must be in {SLOWEST:g} … {FASTEST:g} Hz, got {rate!r}")
        object.__setattr__(self, "rate", float(rate))
        object.__setattr__(self, "observation", tuple(self.observation))
        names = [part.name for part in self.observation]
        if not 1 <= len(names) <= MOST_PARTS:
            raise TaskError(f"observation must have 1 … {MOST_PARTS} parts, got {len(names)}")
        for name in names:
            if names.count(name) > 1:
                raise TaskError(f"observation has two parts named {name!r}")
        if self.observation_dim > MOST_NUMBERS:
            raise TaskError(
                f"observation has {self.observation_dim} numbers, at most {MOST_NUMBERS} are allowed"
            )

    @property
    def observation_dim(self) -> int:
        """Numbers of all parts together."""
        return sum(part.size for part in self.observation)

    @property
    def action_dim(self) -> int:
        return self.action.size

    @property
    def slices(self) -> dict[str, slice]:
        """Where each part lies in an observation."""
        slices, first = {}, 0
        for part in self.observation:
            slices[part.name] = slice(first, first + part.size)
            first += part.size
        return slices

    @property
    def number_names(self) -> tuple[str, ...]:
        """A name for each number of an observation, such as ``arm.shoulder``."""
        return tuple(f"{part.name}.{name}" for part in self.observation for name in part.names)


def task_values(task: Task) -> dict[str, Any]:
    """A task as JSON knows it; `task_from_values` takes it back."""
    values: dict[str, Any] = asdict(task)
    values["observation"] = [{"kind": "vector", **part} for part in values["observation"]]
    return values


def task_from_values(values: object) -> Task:
    """A task from JSON or YAML.

    Raises:
        TaskError: for keys that are missing or unknown, or values that make no task.
    """
    keys = _keys("task", values, ("name", "rate", "observation", "action"))
    if isinstance(keys["observation"], str) or not isinstance(keys["observation"], Sequence):
        raise TaskError(f"observation must be a list of parts, got {keys['observation']!r}")
    parts = []
    for index, part in enumerate(keys["observation"]):
        described = _keys(f"observation[{index}]", part, ("kind", "name", "names", "units"))
        if described.pop("kind") != "vector":
            raise TaskError(f"observation[{index}]: kind must be vector, got {part['kind']!r}")
        parts.append(Part(**described))
    action = _keys("action", keys["action"], ("names", "units", "lower", "upper"))
    return Task(name=keys["name"], rate=keys["rate"], observation=tuple(parts), action=Command(**action))


def task_difference(found: Task, expected: Task) -> str:
    """In words, where observations or actions of one task are none of another; empty where they are.

    Their names and limits may differ: they decide no number.
    """
    parts = {part.name: part for part in found.observation}
    for part in expected.observation:
        if part.name not in parts:
            return f"part {part.name} is missing, there are {', '.join(parts)}"
        if difference := _numbers_difference(part.name, parts[part.name], part):
            return difference
    wanted = [part.name for part in expected.observation]
    for name in parts:
        if name not in wanted:
            return f"part {name} is too much, needed are {', '.join(wanted)}"
    if list(parts) != wanted:
        return f"parts are {', '.join(parts)}, needed in the order {', '.join(wanted)}"
    if difference := _numbers_difference("action", found.action, expected.action):
        return difference
    if found.rate != expected.rate:
        return f"rate is {found.rate:g} Hz, needed is {expected.rate:g} Hz"
    return ""


def _numbers_difference(where: str, found: Part | Command, expected: Part | Command) -> str:
    for key, one, other in (("names", found.names, expected.names), ("units", found.units, expected.units)):
        if len(one) != len(other):
            return f"{where} has {len(one)} numbers, needed are {len(other)}"
        for index, (value, wanted) in enumerate(zip(one, other, strict=True)):
            if value != wanted:
                return f"{where}: {key}[{index}] is {value!r}, needed is {wanted!r}"
    return ""


def _keys(where: str, values: object, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise TaskError(f"{where} must have the keys {', '.join(names)}, got {values!r:.100}")
    for name in names:
        if name not in values:
            raise TaskError(f"{where}: key {name!r} is missing")
    for name in values:
        if name not in names:
            raise TaskError(f"{where}: unknown key {name!r}, must be among {', '.join(names)}")
    return dict(values)


def _texts(where: str, key: str, texts: object) -> tuple[str, ...]:
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise TaskError(f"{where}: {key} must be a list of texts, got {texts!r:.100}")
    for text in texts:
        if not isinstance(text, str) or len(text) > LONGEST_NAME:
            raise TaskError(
                f"{where}: {key} must be texts of at most {LONGEST_NAME} letters, got {text!r:.100}"
            )
    return tuple(texts)


def _check_names(where: str, names: tuple[str, ...], units: tuple[str, ...]) -> None:
    if not 1 <= len(names) <= MOST_NUMBERS:
        raise TaskError(f"{where}: names must be 1 … {MOST_NUMBERS} texts, got {len(names)}")
    if len(units) != len(names):
        raise TaskError(f"{where}: {len(names)} names need as many units, got {len(units)}")
    seen: set[str] = set()
    for name in names:
        if not name or name in seen:
            raise TaskError(f"{where}: names must be distinct and not empty, got {name!r}")
        seen.add(name)


def _limits(key: str, limits: object, size: int) -> tuple[float | None, ...]:
    if isinstance(limits, str) or not isinstance(limits, Sequence) or len(limits) != size:
        raise TaskError(f"action: {key} must be a list of {size} limits, got {limits!r:.100}")
    for limit in limits:
        is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (is_number and math.isfinite(limit)):
            raise TaskError(
                f"action: {key} must be finite numbers, or null where there is no limit, got {limit!r}"
            )
    return tuple(None if limit is None else float(limit) for limit in limits)
