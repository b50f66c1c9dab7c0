"""Rows and tables: from what was measured to the cells that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, isna, read_csv

from training.benchmark.row_cache import Row
from training.evaluation.interval import mean_interval


def read_rewards(path: str, *columns: str) -> DataFrame:
    """These columns of a table of the report `rewards`.

    Raises:
        ValueError: for a file that is no such table.
    """
    found = read_csv(path)
    if missing := set(columns) - set(found.columns):
        raise ValueError(
            f"{path}: no table of the report rewards, columns {', '.join(sorted(missing))} are missing"
        )
    return found[list(columns)]


def table(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Rows as a DataFrame. Integers stay integers where some are missing; a column of None is one of numbers."""
    frame = DataFrame(rows)
    for name in frame:
        kinds = {type(row[name]) for row in rows}
        if type(None) in kinds and kinds <= {int, type(None)}:
            frame[name] = frame[name].astype("Int64" if int in kinds else float)
    return frame


def markdown_table(
    frame: DataFrame, columns: Mapping[Any, tuple[str, str]] | None = None, *, text_columns: int = 1
) -> str:
    """A Markdown table, in which missing cells stay empty.

    Args:
        frame: its cells. A mean gets its interval, such as `0.925 (0.883 … 0.967)`, if there are columns of its limits.
        columns: those to show, with title and format; by default all, as they are.
        text_columns: the first so many columns hold text, the others numbers.
    """
    shown = columns or {name: (name, "") for name in frame}
    cells = {
        title: [_cell(row, name, form) for row in frame.to_dict("records")]
        for name, (title, form) in shown.items()
    }
    alignment = ["left"] * text_columns + ["right"] * (len(cells) - text_columns)
    return str(DataFrame(cells).to_markdown(index=False, disable_numparse=True, colalign=alignment))


def _cell(row: Mapping[Any, Any], name: Any, form: str) -> str:
    value, low, high = row[name], row.get(f"{name}_low"), row.get(f"{name}_high")
    if isna(value):
        return ""
    return f"{value:{form}}" + ("" if isna(low) else f" ({low:{form}} … {high:{form}})")


def interval_cells(name: str, values: Sequence[Any] | NDArray[np.float64]) -> Row:
    """`<name>`, `<name>_low` and `<name>_high` of (noise seeds, episodes), as by `mean_interval`; None of no values."""
    mean, low, high = mean_interval(values) if len(values) else (None, None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
