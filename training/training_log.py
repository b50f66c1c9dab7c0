"""Training curves, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from policy.atomic_write import atomic_write


class TrainingLog:
    """A row of named numbers for some optimiser steps, in `log.csv` and `tensorboard/` of a folder.

    Rows after `step` were written by a run that was killed before it saved its state. They are dropped, because the
    training writes them again.
    """

    def __init__(self, output_dir: Path, columns: list[str], step: int) -> None:
        self._columns = ["step", *columns]
        self._path = output_dir / "log.csv"
        kept = self._rows_until(step) if self._path.is_file() else []
        with atomic_write(self._path) as temporary:
            self._file = open(temporary, "w", newline="", encoding="utf-8")  # noqa: SIM115, closed in close()
            self._csv = csv.DictWriter(self._file, self._columns, extrasaction="ignore")
            self._csv.writeheader()
            self._csv.writerows(kept)
            self._file.flush()
        self._tensorboard = SummaryWriter(str(output_dir / "tensorboard"), purge_step=step + 1)

    def _rows_until(self, step: int) -> list[dict[str, str]]:
        kept = []
        try:
            with open(self._path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    complete = all(row.get(column) is not None for column in self._columns)
                    if complete and int(row["step"]) <= step:
                        kept.append(row)
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{self._path}: no log of a training ({error}); remove it") from error
        return kept

    def write(self, step: int, values: Mapping[str, float]) -> None:
        try:
            self._csv.writerow({"step": step, **{name: f"{value:.8g}" for name, value in values.items()}})
            self._file.flush()
        except OSError as error:  # a full disk, for instance
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()
