"""The classes of ROS's message types, by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def message_class(name: str) -> Any:
    """The class of a type such as `sensor_msgs/JointState`.

    Raises:
        ValueError: if ROS has no such type here.
    """
    package, _, kind = name.replace("/msg/", "/").partition("/")
    try:
        return getattr(import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        raise ValueError(f"message type {name!r} is not installed: apt install ros-…-{package}") from None
