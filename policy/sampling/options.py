"""Options of a sampler: dataclass fields whose metadata say what is allowed."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def choice(default: str, choices: tuple[str, ...], description: str) -> Any:
    return field(default=default, metadata={"description": description, "choices": choices})


def number(default: float, limits: tuple[float, float], description: str) -> Any:
    return field(
        default=default, metadata={"description": description, "minimum": limits[0], "maximum": limits[1]}
    )
