"""What a task is made of: observed vectors, observed pictures, and the commanded vector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_NUMBERS, LONGEST_NAME, LONGEST_SIDE = 65536, 200, 4096


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
        _check_part_name(self.name)
        for key in ("names", "units"):
            object.__setattr__(self, key, _texts(self.name, key, getattr(self, key)))
        _check_names(self.name, self.names, self.units)

    @property
    def size(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """One observed picture (height, width, 3): RGB, uint8, row by row from the top.

    Attributes:
        name: of the part; a source of the robot that fills it has the same.
        height, width: in px.

    Raises:
        TaskError: for another name than a simple one, or sizes that no camera has.
    """

    name: str
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_part_name(self.name)
        for key in ("height", "width"):
            side = getattr(self, key)
            if type(side) is not int or not 1 <= side <= LONGEST_SIDE:
                raise TaskError(
                    f"{self.name}: {key} must be a whole number in 1 … {LONGEST_SIDE} px, got {side!r}"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, 3)


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


def _check_part_name(name: object) -> None:
    if not (isinstance(name, str) and name.isidentifier() and len(name) <= LONGEST_NAME):
        raise TaskError(f"name of a part must be a simple name, such as arm, got {name!r}")


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
