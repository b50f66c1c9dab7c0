"""Families with planted defects, by which the injector itself is tested."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome, try_to


def _inject(rng: np.random.Generator, case: Path) -> Fault:
    number = int(rng.integers(10**9))
    return Fault(f"number {number}", lambda: "accepted")


def _prepare(act: object) -> object:
    def prepare(folder: Path) -> Inject:
        return lambda rng, case: Fault("planted", act)  # type: ignore[arg-type]

    return prepare


def _raise_another_error() -> Outcome:
    return try_to(lambda: {}["x"], errors=ValueError, naming="x")


def _name_nothing() -> Outcome:
    return try_to(lambda: int("y"), errors=ValueError, naming="file.zarr")


def _say_two_lines() -> Outcome:
    def act() -> None:
        raise ValueError("file.zarr\nis bad")

    return try_to(act, errors=ValueError, naming="file.zarr")


def _refuse() -> Outcome:
    return try_to(lambda: int("file.zarr"), errors=ValueError, naming="file.zarr")


def _accept_what_is_wrong() -> Outcome:
    raise Mishandled("accepts 3 for 4")


def _fill_memory() -> Outcome:
    assert len(bytearray(os.urandom(1) * (300 << 20))) > 0
    return "accepted"


def _compute() -> Outcome:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    return "accepted"


def _die() -> Outcome:
    os._exit(7)


def _hang() -> Outcome:
    time.sleep(3600)
    return "accepted"


def planted() -> dict[str, Family]:
    """By name; `fine` and `refused` are handled, the others are not."""
    acts = {
        "refused": _refuse,
        "another error": _raise_another_error,
        "unnamed": _name_nothing,
        "two lines": _say_two_lines,
        "wrong": _accept_what_is_wrong,
        "memory": _fill_memory,
        "time": _compute,
        "death": _die,
        "hang": _hang,
    }
    seconds = {"time": 0.2}
    found = {name: Family(name, 1.0, _prepare(act), seconds.get(name, 60.0)) for name, act in acts.items()}  # type: ignore[arg-type]
    return {"fine": Family("fine", 1.0, lambda folder: _inject), **found}
