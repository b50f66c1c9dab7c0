"""Damage to the fields of a ROS message."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

INTEGERS = (0, 1, -1, 7, 100, 101, 255, 256, 999_999_999, 10**9, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
NUMBERS = (0.0, -0.0, 1.0, 250.0, 1e-320, 1e38, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    "a",
    "pusher_x",
    "pusher_y",
    "world",
    "policy",
    "/policy",
    "é",
    "x" * 5000,
    "a\nb",
    "%s%n",
    "nan",
)
LENGTHS = (0, 1, 2, 3, 7, 9, 100)


def damage_message(rng: np.random.Generator, message: Any) -> str:
    """Change one to four fields of a message, at any depth."""
    return " and ".join(_change(rng, message, "") for _ in range(int(rng.integers(1, 5))))


def _change(rng: np.random.Generator, message: Any, path: str) -> str:
    fields = message.get_fields_and_field_types()
    names = sorted(fields)
    name = names[rng.integers(len(names))]
    path, kind, value = f"{path}.{name}", fields[name], getattr(message, name)
    if hasattr(value, "get_fields_and_field_types"):
        return _change(rng, value, path)
    if kind.startswith("sequence<") or isinstance(value, (list, tuple)):
        return _change_list(rng, message, name, path=path)
    new = _scalar(rng, kind)
    setattr(message, name, new)
    return f"{path} is {str(new)[:30]!r}"


def _change_list(rng: np.random.Generator, message: Any, name: str, *, path: str) -> str:
    values = list(getattr(message, name))
    kind = message.get_fields_and_field_types()[name].removeprefix("sequence<").removesuffix(">")
    if values and hasattr(values[0], "get_fields_and_field_types") and rng.random() < 0.6:
        return _change(rng, values[rng.integers(len(values))], f"{path}[]")
    length = int(LENGTHS[rng.integers(len(LENGTHS))]) if rng.random() < 0.95 else 20_000
    if values and rng.random() < 0.5:
        new = (values * (length // len(values) + 1))[:length]
        text = f"{path} is repeated to {length}"
    elif kind in ("double", "float", "string"):
        new = [_scalar(rng, kind) for _ in range(min(length, 100))]
        text = f"{path} is {str(new)[:60]}"
    else:
        new, text = values[: length // 2], f"{path} is cut to {length // 2}"
    setattr(message, name, new)
    return text


def _scalar(rng: np.random.Generator, kind: str) -> Any:
    if kind in ("double", "float"):
        return float(NUMBERS[rng.integers(len(NUMBERS))]) if rng.random() < 0.8 else float(rng.normal(0, 1e3))
    if kind == "boolean":
        return bool(rng.random() < 0.5)
    if kind.startswith("string"):
        return TEXTS[rng.integers(len(TEXTS))]
    if kind in ("octet", "byte"):
        return bytes([int(rng.integers(256))])
    bits = int(re.sub(r"\D", "", kind))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return min(max(int(INTEGERS[rng.integers(len(INTEGERS))]), low), high)
