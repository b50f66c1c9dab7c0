"""The limits of joints that a robot's URDF tells. It needs nothing but Python's own parser of XML."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policy.robot.description import RobotError

MOST_BYTES = 1 << 22
"""Of a URDF. The largest robots have a tenth of that."""

UNBOUNDED = ("continuous", "floating", "planar")
"""Types of joints whose positions a URDF does not limit."""


@dataclass(frozen=True)
class UrdfLimit:
    """What a URDF says of one joint, in rad or m and s; None where it says nothing."""

    lower: float | None
    upper: float | None
    velocity: float | None


def read_urdf(path: str | Path) -> str:
    """The text of a URDF file.

    Raises:
        RobotError: naming the file, and what is wrong with it.
    """
    try:
        size = Path(path).stat().st_size
        if size > MOST_BYTES:
            raise RobotError(f"urdf {path}: has {size} bytes, at most {MOST_BYTES} are read")
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise RobotError(f"urdf {path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RobotError(f"urdf {path}: is not text") from None


def urdf_limits(text: str, joints: Sequence[str]) -> tuple[UrdfLimit, ...]:
    """The limits of some joints of a URDF, in their order.

    Raises:
        RobotError: for text that is no URDF, a joint that is not in it, or a limit that is no number.
    """
    # Entities are declared in a document type alone, and can fill any memory. No URDF has one.
    if "<!DOCTYPE" in text:
        raise RobotError("the URDF has a document type, which no URDF needs: refused")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise RobotError(f"the URDF is no XML: {error}") from None
    if root.tag != "robot":
        raise RobotError(f"the URDF must be a <robot>, got <{root.tag:.50}>")
    found = {joint.get("name", ""): joint for joint in root.findall("joint")}
    return tuple(_limit(_named(name, found), name) for name in joints)


def _named(name: str, found: dict[str, ElementTree.Element]) -> ElementTree.Element:
    if name not in found:
        known = ", ".join(list(found)[:8]) + (", …" if len(found) > 8 else "")
        raise RobotError(f"the URDF has no joint {name!r}, only {known or 'none'}")
    return found[name]


def _limit(joint: ElementTree.Element, name: str) -> UrdfLimit:
    limit = joint.find("limit")
    if limit is None:
        return UrdfLimit(None, None, None)
    value = {key: _number(text, f"{key} of joint {name!r}") for key, text in limit.items()}
    if joint.get("type") in UNBOUNDED:
        return UrdfLimit(None, None, value.get("velocity"))
    # By the specification, 0 where they are left out.
    return UrdfLimit(value.get("lower", 0.0), value.get("upper", 0.0), value.get("velocity"))


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RobotError(f"the URDF's {what} must be a number, got {text!r:.50}")
    return number
