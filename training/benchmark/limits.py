"""Fields of a configuration whose metadata say which values are allowed, and the check of them."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any

from policy.runtime import ENGINES

MOST = 10**8  # of anything that is counted: what is beyond is a slip, and would never end


def numbers(*default: float, least: float | None = None, empty: bool = True, repeated: bool = True) -> Any:
    """A list of numbers: the least that is allowed, whether it may be empty, and whether numbers may be repeated."""
    limits = {"least": least, "empty": empty, "repeated": repeated}
    return field(default_factory=lambda: list(default), metadata=limits)


def at_least(least: float, default: float | None) -> Any:
    return field(default=default, metadata={"least": least})


def positive(default: Any) -> Any:
    """A number above 0, or a list of such."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"positive": True})
    return field(default=default, metadata={"positive": True})


def check(config: Any, prefix: str = "") -> None:
    """Refuse values beyond the limits in the fields' metadata, by name."""
    for option in fields(config):
        name, value, limits = prefix + option.name, getattr(config, option.name), option.metadata
        given = value if isinstance(value, list) else [] if value is None else [value]
        if not limits.get("empty", True) and not value:
            raise ValueError(f"{name} must not be empty")
        if not limits.get("repeated", True) and len(set(given)) < len(given):
            raise ValueError(f"{name} must not repeat a number, got {value}")
        least = limits.get("least")
        if least is not None and min(given, default=least) < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
        if least is not None and max(given, default=0) > MOST:
            raise ValueError(f"{name} must be at most {MOST}, got {value}")
        if limits.get("positive") and not min(given, default=1) > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
        if prefix and option.name == "engine" and value not in ("auto", *ENGINES):
            raise ValueError(f"{name} must be one of auto, {', '.join(ENGINES)}, got {value!r}")
        if option.name == "first_seed" and not 0 <= value <= 2**32 - config.episodes:
            raise ValueError(f"{name} must be in 0 … {2**32 - config.episodes}, got {value}")
