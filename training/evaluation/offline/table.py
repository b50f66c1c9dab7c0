"""A judgement as a table: for the terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from policy.atomic_write import atomic_write

METHODS = ("policy", "hold", "mean")
HEADER = ("action", "mean abs. error", "95 % interval", "RMSE", "p95", "hold", "mean")


def format_judgement(summary: dict[str, Any]) -> str:
    """A table for the terminal, one row per dimension, and what it says."""
    overall = summary["overall"]
    rows = [_row(_named(row), row["policy"], row) for row in summary["dimensions"]]
    if overall["policy"]["mean"] is not None:
        policy = {"mean_absolute": overall["policy"]}
        rest = {name: {"mean_absolute": overall[name]} for name in METHODS}
        rows.append(_row("all (share of the range)", policy, rest))
    seeds = len(summary["noise_seeds"])
    lines = _aligned([HEADER, *rows])
    lines.append(
        f"{summary['steps']} steps of {_listed(summary['episodes'])}, {summary['chunks']} chunks × {seeds} noise "
        f"seed{'s' if seeds > 1 else ''}"
    )
    if "episodes_are" in summary:
        lines.append(f"episodes: {summary['episodes_are']}")
    lines += [f"{name}: {meaning}" for name, meaning in summary["baselines"].items()]
    lines.append(f"ranges: of {summary['ranges_of']}")
    return "\n".join([*lines, _verdict(summary["dimensions"])])


def write_table(path: Path, summary: dict[str, Any]) -> None:
    """A CSV with a row per dimension, unrounded."""
    rows = []
    for row in summary["dimensions"]:
        cells = {"name": row["name"], "unit": row["unit"], "range": row["range"]}
        for method in METHODS:
            errors = row[method]
            cells |= _interval_cells(f"{method}_mean_absolute", errors["mean_absolute"])
            cells |= {f"{method}_{name}": errors[name] for name in ("rmse", "p95")}
        rows.append(cells | _interval_cells("policy_minus_hold", row["policy_minus_hold"]))
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _interval_cells(name: str, interval: dict[str, Any]) -> dict[str, Any]:
    return {name: interval["mean"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}


def _named(row: dict[str, Any]) -> str:
    return f"{row['name']} ({row['unit']})" if row["unit"] else str(row["name"])


def _row(name: str, policy: dict[str, Any], methods: dict[str, Any]) -> tuple[str, ...]:
    error = policy["mean_absolute"]
    interval = "" if error["low"] is None else f"{error['low']:.3g} … {error['high']:.3g}"
    spread = [f"{policy[key]:.3g}" if key in policy else "" for key in ("rmse", "p95")]
    baselines = [f"{methods[method]['mean_absolute']['mean']:.3g}" for method in METHODS[1:]]
    return name, f"{error['mean']:.3g}", interval, *spread, *baselines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) if index == 0 else cell.rjust(width) for index, (cell, width) in
                  enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip


def _listed(episodes: Sequence[int], most: int = 12) -> str:
    if len(episodes) == 1:
        return f"episode {episodes[0]}"
    shown = ", ".join(map(str, episodes[:most]))
    return f"{len(episodes)} episodes ({shown}{', …' if len(episodes) > most else ''})"


def _verdict(dimensions: Sequence[dict[str, Any]]) -> str:
    """In how many dimensions which baseline has the smaller mean absolute error."""
    beaten = {
        method: sum(
            row[method]["mean_absolute"]["mean"] < row["policy"]["mean_absolute"]["mean"]
            for row in dimensions
        )
        for method in METHODS[1:]
    }
    if not any(beaten.values()):
        return (
            f"the policy's mean absolute error is below both baselines' in all {len(dimensions)} dimensions"
        )
    found = " and ".join(f"{method} in {count}" for method, count in beaten.items() if count)
    return f"better than the policy: {found} of {len(dimensions)} dimensions"
