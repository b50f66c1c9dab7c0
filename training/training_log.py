"""Training curves, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """A row of named numbers for some optimiser steps, in `log.csv` and `tensorboard/` of a folder.

    Rows after `step` were written by a run that was killed before it saved its state. They are dropped, because the
    training writes them again.
    """

    def __init__(self, output_dir: Path, columns: list[str], step: int) -> None:
        self._columns = ["step", *columns]
        path = output_dir / "log.csv"
        kept: list[dict[str, str]] = []
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    complete = all(row.get(column) is not None for column in self._columns)
                    if complete and int(row["step"]) <= step:
                        kept.append(row)
        temporary = path.with_suffix(".csv.tmp")
        self._file = open(temporary, "w", newline="", encoding="utf-8")  # noqa: SIM115, closed in close()
        self._csv = csv.DictWriter(self._file, self._columns, extrasaction="ignore")
        self._csv.writeheader()
        self._csv.writerows(kept)
        self._file.flush()
        temporary.replace(path)
        self._tensorboard = SummaryWriter(str(output_dir / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._csv.writerow({"step": step, **{name: f"{value:.8g}" for name, value in values.items()}})
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()
