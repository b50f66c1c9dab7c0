"""A task: what a robot observes, what it is commanded, and how often.

Plain data. It travels in the attributes of demonstrations and in the header of a checkpoint, so that nobody states it
twice: the trainer takes it from the demonstrations, the robot from the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from policy.task_parts import LONGEST_NAME, MOST_NUMBERS, Command, ImagePart, Part, TaskError

MOST_PARTS = 64
FASTEST, SLOWEST = 10_000.0, 1e-3  # rates in Hz
KINDS: Mapping[str, tuple[type[Part] | type[ImagePart], tuple[str, ...]]] = {
    "vector": (Part, ("kind", "name", "names", "units")),
    "image": (ImagePart, ("kind", "name", "height", "width")),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is observed, what is commanded, at what rate.

    Attributes:
        name: of the task.
        rate: control steps a second, in Hz.
        observation: parts, vectors and pictures. In an observation the vectors' numbers come in this order.
        action: what is commanded.

    Raises:
        TaskError: for a rate that no robot has, no part, or parts of the same name.
    """

    name: str
    rate: float
    observation: tuple[Part | ImagePart, ...]
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
    def vectors(self) -> tuple[Part, ...]:
        """The parts that are numbers."""
        return tuple(part for part in self.observation if isinstance(part, Part))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The parts that are pictures."""
        return tuple(part for part in self.observation if isinstance(part, ImagePart))

    @property
    def observation_dim(self) -> int:
        """Numbers of all vectors together; 0 for a task with pictures only."""
        return sum(part.size for part in self.vectors)

    @property
    def action_dim(self) -> int:
        return self.action.size

    @property
    def slices(self) -> dict[str, slice]:
        """Where each vector lies in an observation."""
        slices, first = {}, 0
        for part in self.vectors:
            slices[part.name] = slice(first, first + part.size)
            first += part.size
        return slices

    @property
    def number_names(self) -> tuple[str, ...]:
        """A name for each number of the vectors, such as ``arm.shoulder``."""
        return tuple(f"{part.name}.{name}" for part in self.vectors for name in part.names)


def task_values(task: Task) -> dict[str, Any]:
    """A task as JSON knows it; `task_from_values` takes it back."""
    values: dict[str, Any] = asdict(task)
    values["observation"] = [
        {"kind": "image" if isinstance(part, ImagePart) else "vector", **asdict(part)}
        for part in task.observation
    ]
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
        kind = part.get("kind", "vector") if isinstance(part, Mapping) else "vector"
        if not isinstance(kind, str) or kind not in KINDS:
            raise TaskError(f"observation[{index}]: kind must be {' or '.join(KINDS)}, got {kind!r}")
        part_type, names = KINDS[kind]
        described = _keys(f"observation[{index}]", part, names)
        del described["kind"]
        parts.append(part_type(**described))
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
        if difference := _part_difference(parts[part.name], part):
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


def _part_difference(found: Part | ImagePart, expected: Part | ImagePart) -> str:
    if isinstance(found, Part) and isinstance(expected, Part):
        return _numbers_difference(expected.name, found, expected)
    if found == expected:
        return ""

    def described(part: Part | ImagePart) -> str:
        if isinstance(part, Part):
            return f"a vector of {part.size}"
        return f"a picture of {part.height} x {part.width} px"

    return f"{expected.name} is {described(found)}, needed is {described(expected)}"


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
