"""The files of a judgement."""

from __future__ import annotations

from pathlib import Path

from training.evaluation.offline.judgement import Judgement
from training.evaluation.offline.plot import plot_chunks
from training.evaluation.offline.table import format_judgement, write_table


def write_judgement(judgement: Judgement, folder: Path, name: str) -> str:
    """Write `<name>.csv` and `<name>.png` into a folder.

    Returns:
        The table for the terminal.
    """
    write_table(folder / f"{name}.csv", judgement.summary)
    plot_chunks(judgement, folder / f"{name}.png")
    return format_judgement(judgement.summary)
