"""Measured rows on disk, so that an interrupted report goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from policy.atomic_write import atomic_write
from training.provenance import code_version

Row: TypeAlias = dict[str, Any]
"""Column → JSON value."""


@dataclass(frozen=True)
class Task:
    """A row to be measured.

    Attributes:
        label: for the progress bar.
        cost: in network evaluations, roughly.
        identity: what decides the row, besides what decides all of the report (JSON values).
        measure: it.
    """

    label: str
    cost: float
    identity: Mapping[str, Any]
    measure: Callable[[], Row]


@dataclass(frozen=True)
class RowCache:
    """One JSON file for each row, named after a hash of all that decides it.

    Several processes may share a directory: a file is there as a whole or not at all, and whoever writes the same row
    writes the same identity.

    Attributes:
        directory: made when the first row is written.
        shared: what decides every row of the report, such as the checkpoint's hash (JSON values).
    """

    directory: Path
    shared: Mapping[str, Any]

    def path(self, identity: Mapping[str, Any]) -> Path:
        """Of the row's file, which need not be there."""
        text = json.dumps(self._whole(identity), sort_keys=True)
        return self.directory / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"

    def find(self, identity: Mapping[str, Any]) -> Row | None:
        """The row of that identity, if it has been measured. A file that cannot be read counts as not there."""
        whole = self._whole(identity)
        try:
            saved = json.loads(self.path(identity).read_text(encoding="utf-8"))
            return dict(saved["row"]) if saved["identity"] == whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def read(self, task: Task) -> Row:
        """The row of a task that has been measured.

        Raises:
            RuntimeError: if it is not there.
        """
        row = self.find(task.identity)
        if row is None:
            raise RuntimeError(
                f"{self.path(task.identity)}, the {task.label}, has gone while this was running"
            )
        return row

    def find_or_measure(self, identity: Mapping[str, Any], measure: Callable[[], Row]) -> Row:
        """The row of that identity; measured, and written, if it is not there. Its column `code` says by which code."""
        row = self.find(identity)
        if row is None:
            started = time.monotonic()
            row = {**measure(), "code": code_version()}
            seconds = round(time.monotonic() - started, 3)
            saved = {"identity": self._whole(identity), "row": row, "seconds": seconds}
            text = json.dumps(saved, indent=2, allow_nan=False) + "\n"
            with atomic_write(self.path(identity)) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return row

    def measure_all(self, tasks: Sequence[Task], description: str) -> None:
        """Measure what is missing, in this order, with a progress bar over all of it."""
        missing = [task for task in tasks if self.find(task.identity) is None]
        total = sum(task.cost for task in missing)
        with tqdm(total=total, desc=description, unit="evaluation", unit_scale=True, miniters=1) as progress:
            for task in missing:
                progress.set_postfix_str(task.label)
                self.find_or_measure(task.identity, task.measure)
                progress.update(task.cost)

    def _whole(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        # Through JSON, as the saved one: it knows no tuples.
        whole: dict[str, Any] = json.loads(json.dumps({**self.shared, **identity}, sort_keys=True))
        return whole
