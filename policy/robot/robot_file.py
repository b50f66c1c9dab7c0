"""The robot's file: the YAML of ROS parameters that the policy node is started with."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from policy.robot.description import Robot, RobotError
from policy.robot.parameters import flat_parameters, robot_from_parameters

PARAMETERS = "ros__parameters"
MOST_BYTES = 1 << 20
NODE = "/policy"


def load_robot(path: str | Path, node: str = NODE) -> Robot:
    """Read a robot's file. It needs PyYAML, which ROS and the training commands bring.

    Args:
        path: YAML of ROS parameters.
        node: full name of the policy node whose parameters count.

    Raises:
        RobotError: naming the file, and what is wrong in it.
    """
    try:
        return robot_from_parameters(node_parameters(_read(Path(path)), node))
    except RobotError as error:
        raise RobotError(f"{path}: {error}") from None


def node_parameters(content: object, node: str) -> dict[str, Any]:
    """The parameters of a node in a file's content, by their full names; a later one replaces an earlier one.

    Raises:
        RobotError: if no part of the content is for the node.
    """
    parameters: dict[str, Any] = {}
    patterns = []
    for pattern, values in _blocks(content):
        patterns.append(pattern)
        if _matches(pattern, node):
            parameters |= flat_parameters(values)
    if not parameters:
        found = f"only for {', '.join(patterns)}" if patterns else "none"
        raise RobotError(f"must hold `{node}: {PARAMETERS}:` or `/**: {PARAMETERS}:`, has {found}")
    return parameters


def _read(path: Path) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise RobotError("needs PyYAML to be read: pip install PyYAML") from None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RobotError(f"has {path.stat().st_size} bytes, at most {MOST_BYTES} are read")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RobotError("no such robot file") from None
    except OSError as error:
        raise RobotError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RobotError("is not text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise RobotError(f"{where}no YAML: {getattr(error, 'problem', None) or error}") from None


def _blocks(content: object, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parameters in a file, each with the pattern of node names that it is for."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if key == PARAMETERS:
            if isinstance(value, Mapping):
                yield name or "/**", value
        else:
            yield from _blocks(value, f"{name}/{str(key).strip('/')}")


def _matches(pattern: str, node: str) -> bool:
    """Whether a pattern is for a node: ``*`` stands for one name, ``**`` for any number of them."""
    parts = {"**": r"(/\w+)*", "*": r"/\w+"}
    expression = "".join(parts.get(part, re.escape(f"/{part}")) for part in pattern.strip("/").split("/"))
    return re.fullmatch(expression, node) is not None
