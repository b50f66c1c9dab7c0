"""Damage to bytes and to values of JSON, each with words that say what it is."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 16, 17, 255, 256, 65536, 10**6, 10**9, 2**31, 2**40),
    *(2**63 - 1, 2**63, -(2**63) - 1, 2**70, 10**300, 0.0, -0.0, 0.5, 1.5, 16.0, 1e-320, 1e38, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "a",
        "16",
        "nan",
        "null",
        "../../x",
        "/dev/zero",
        "\0",
        "a\nb",
        "é",
        "x" * 5000,
        "(a+)+$",
        "(" * 50,
    ),
    *([], {}, [[]], [0], [-1], [1, 2, 3], [8192, 8192], [None], ["a"], [10**9] * 3, [1] * 500),
    *({"a": 1}, {"id": "pickle"}, {"name": "pickle"}, {"": {}}),
)


def hostile_value(rng: np.random.Generator) -> Any:
    if rng.random() < 0.05:
        deep: Any = []
        for _ in range(int(rng.integers(50, 900))):
            deep = [deep]
        return deep
    return copy.deepcopy(HOSTILE[rng.integers(len(HOSTILE))])


def damaged_bytes(rng: np.random.Generator, content: bytes, *, start: int = 0) -> tuple[bytes, str]:
    """Bytes with one kind of damage after `start`."""
    size = len(content)
    start = min(start, size)
    place = int(rng.integers(start, size)) if size > start else size
    length = int(min(size - place, 2 ** rng.integers(0, 13)))
    kind = rng.choice(
        [
            "flip",
            "flips",
            "random",
            "truncate",
            "delete",
            "double",
            "insert",
            "zero",
            "swap",
            "append",
            "empty",
        ],
        p=[0.3, 0.1, 0.1, 0.1, 0.1, 0.05, 0.08, 0.05, 0.05, 0.05, 0.02],
    )
    damaged = bytearray(content)
    if kind in ("flip", "flips") and size > start:
        count = 1 if kind == "flip" else int(rng.integers(2, 30))
        for at in (place, *rng.integers(start, size, count - 1)):
            damaged[at] ^= 1 << int(rng.integers(8))
    elif kind == "random":
        damaged[place : place + length] = rng.bytes(length)
    elif kind == "truncate":
        del damaged[place:]
    elif kind == "delete":
        del damaged[place : place + length]
    elif kind == "double":
        damaged[place:place] = damaged[place : place + length]
    elif kind == "insert":
        damaged[place:place] = rng.bytes(length)
    elif kind == "zero":
        damaged[place : place + length] = bytes(length)
    elif kind == "swap" and size > start:
        other = int(rng.integers(start, size))
        damaged[place], damaged[other] = damaged[other], damaged[place]
    elif kind == "append":
        damaged += rng.bytes(int(2 ** rng.integers(0, 13)))
    elif kind == "empty":
        damaged.clear()
    return bytes(damaged), f"{kind} at byte {place} of {size}"


def damaged_json(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """A copy of a value of JSON with one to three places changed."""
    value = copy.deepcopy(value)
    said = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.8, 0.15, 0.05]))):
        value, text = _change_place(rng, value)
        said.append(text)
    return value, " and ".join(said)


def _change_place(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    paths = _paths(value)
    # Each depth alike, as deep lists of numbers would get everything.
    depths = sorted({len(path) for path in paths})
    depth = int(rng.choice(depths))
    candidates = [path for path in paths if len(path) == depth]
    path = candidates[rng.integers(len(candidates))]
    where = ".".join(map(str, path))
    if not path:
        new = hostile_value(rng)
        return new, f"all is {_short(new)}"
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    kind = rng.choice(["replace", "number", "remove", "add", "rename"], p=[0.55, 0.2, 0.1, 0.1, 0.05])
    if kind == "remove":
        del parent[key]
        return value, f"{where} is removed"
    if kind == "rename" and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
        return value, f"{where} is renamed"
    new = hostile_value(rng)
    if kind == "add" and isinstance(parent, dict):
        parent["added"] = new
        return value, f"beside {where} is added {_short(new)}"
    if kind == "add" and isinstance(parent, list):
        parent.append(new)
        return value, f"beside {where} is appended {_short(new)}"
    old = parent[key]
    if kind == "number" and isinstance(old, (int, float)) and not isinstance(old, bool):
        new = [float(old), -old, old + 1, old * 2, old // 2, str(old), old * 10**6][rng.integers(7)]
    parent[key] = new
    return value, f"{where} is {_short(new)}"


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    if len(path) > 20:
        return [path]
    return [path, *(found for key, child in children for found in _paths(child, (*path, key)))]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}… ({len(text)} letters)"
