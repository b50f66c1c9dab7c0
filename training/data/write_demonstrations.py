"""Write demonstrations of any task, episode by episode, into a store that `load_demonstrations` reads.

The store appears whole or not at all. Until then its steps are in a folder beside it, from which an import that was
killed goes on. Memory holds the numbers of one episode, and one picture.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from policy.atomic_write import atomic_write
from policy.task import Task, task_values
from training.data.picture_file import Picture, PictureFile
from training.data.store_check import MOST_ROWS
from training.data.store_files import StoreError
from training.data.whole_store import locked_store, write_store

STEPS, EPISODES, ORIGIN = "steps.f32", "episodes.jsonl", "origin.json"


class EpisodeWriter:
    """Takes episodes one after the other; see `write_demonstrations`, which makes one.

    Attributes:
        ends: one past the last step of each episode that was kept.
        sources: of all episodes so far, kept or dropped, also by the run that this one continues.
        dropped: source and reason of each episode that was dropped.
        counts: sums of what `count` was told.
    """

    def __init__(self, path: Path, task: Task, folder: Path) -> None:
        self.ends: list[int] = []
        self.sources: list[str] = []
        self.dropped: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self._path, self._task, self._folder = path, task, folder
        self._row_bytes = 4 * (task.observation_dim + task.action_dim)
        self._read_earlier()
        self._steps: IO[bytes] = open(folder / STEPS, "ab")  # noqa: SIM115 - closed by `close`
        self._episodes: IO[str] = open(folder / EPISODES, "a", encoding="utf-8")  # noqa: SIM115
        self._pictures = {image.name: PictureFile(folder, image) for image in task.images}

    def append(
        self,
        observations: ArrayLike,
        actions: ArrayLike,
        *,
        pictures: Mapping[str, Iterable[Picture]] | None = None,
        source: str = "",
    ) -> None:
        """Add an episode.

        Args:
            observations: (n, D) of the task's vectors in their order, in their units.
            actions: (n, A): what was commanded at these steps.
            pictures: n pictures (height, width, 3) of each of the task's cameras, which are asked for one by one.
            source: name of the episode where it comes from, for messages and to go on after a kill.

        Raises:
            StoreError: for another shape, no step, a value that is not finite in float32, or too many steps. Nothing is
                added then, nor if asking for pictures raises.
        """
        where = f"{self._path}: episode {source or len(self.sources)}"
        action_names = tuple(f"action.{name}" for name in self._task.action.names)
        given_rows = [
            _rows(f"{where}: observations", observations, self._task.number_names),
            _rows(f"{where}: actions", actions, action_names),
        ]
        if len(given_rows[0]) != len(given_rows[1]):
            lengths = f"{len(given_rows[0])} observations, but {len(given_rows[1])} actions"
            raise StoreError(f"{where} has {lengths}; each step has both")
        rows = np.concatenate(given_rows, axis=1)
        end = (self.ends[-1] if self.ends else 0) + len(rows)
        if end > MOST_ROWS:
            raise StoreError(f"{where} ends at step {end}, at most {MOST_ROWS} are allowed")
        given = pictures or {}
        if given.keys() != self._pictures.keys():
            expected = ", ".join(self._pictures) or "none"
            raise StoreError(f"{where} has pictures of {', '.join(given) or 'none'}, expected {expected}")
        for name, file in self._pictures.items():
            file.append(given[name], first=end - len(rows), count=len(rows), where=f"{where}: {name}")
        self._steps.write(rows.astype("<f4", copy=False).tobytes())
        self._steps.flush()
        # Only now does the episode count.
        self._note({"end": end, "source": source})
        self.ends.append(end)
        self.sources.append(source)

    def drop(self, source: str, reason: str) -> None:
        """Note an episode that is left out, and why."""
        self._note({"dropped": reason, "source": source})
        self.sources.append(source)
        self.dropped.append((source, reason))

    def count(self, numbers: Mapping[str, int]) -> None:
        """Note numbers of the newest episode, by name, for reports."""
        self._note({"counts": dict(numbers)})
        self.counts.update(numbers)

    def close(self) -> None:
        self._steps.close()
        self._episodes.close()
        for file in self._pictures.values():
            file.close()

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Write the store. Raises StoreError if there is no episode."""
        self.close()
        if not self.ends:
            raise StoreError(f"{self._path}: no episode to write")
        width = self._row_bytes // 4
        rows = np.memmap(self._folder / STEPS, "<f4", "r", shape=(self.ends[-1], width))
        arrays: dict[str, np.ndarray] = {
            f"data/{name}": rows[:, part] for name, part in self._task.slices.items()
        }
        for name, file in self._pictures.items():
            arrays[f"data/{name}"] = file.rows(self.ends[-1])
        arrays["data/action"] = rows[:, self._task.observation_dim :]
        arrays["meta/episode_ends"] = np.array(self.ends, "<i8")
        attributes = {"task": task_values(self._task), "provenance": dict(provenance)}
        write_store(self._path, arrays, attributes)

    def _note(self, line: Mapping[str, Any]) -> None:
        self._episodes.write(json.dumps(line) + "\n")
        self._episodes.flush()

    def _read_earlier(self) -> None:
        """Take over what a killed run has left, up to the last episode that is whole."""
        notes = self._folder / EPISODES
        whole = 0
        for line in notes.read_bytes().splitlines(keepends=True) if notes.exists() else ():
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            note = json.loads(line)
            if "counts" in note:
                self.counts.update(note["counts"])
                continue
            self.sources.append(note["source"])
            if "end" in note:
                self.ends.append(note["end"])
            else:
                self.dropped.append((note["source"], note["dropped"]))
        for name, size in ((EPISODES, whole), (STEPS, (self.ends[-1] if self.ends else 0) * self._row_bytes)):
            with open(self._folder / name, "ab") as file:
                file.truncate(size)


@contextmanager
def write_demonstrations(
    path: str | Path,
    task: Task,
    *,
    origin: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Iterator[EpisodeWriter]:
    """A writer of episodes; the store is there once the block has ended without an exception.

    Args:
        path: folder of the store, where nothing may be yet.
        task: what the numbers are.
        origin: everything that decides the episodes (JSON values). With the same one, a run goes on where a killed or
            failed one has stopped; `EpisodeWriter.sources` says where. None: it begins anew.
        provenance: where the demonstrations come from (JSON values), kept in the store's attributes.

    Raises:
        StoreError: if there is something at the path, another process writes it, or no episode was added.
    """
    path = Path(path)
    if any(part.name == "action" for part in task.observation):
        raise StoreError(f"{path}: a part must not be named action, as the array of the actions is")
    with locked_store(path):
        if path.exists():
            raise StoreError(f"{path} is there already; choose another output, or move it away")
        folder = path.with_name(f".{path.name}.partial")
        identity = json.dumps({"task": task_values(task), "origin": origin}, sort_keys=True)
        if origin is None or not _holds(folder / ORIGIN, identity):
            _begin(folder, identity)
        writer = EpisodeWriter(path, task, folder)
        try:
            yield writer
            writer.finish(provenance or {})
        except BaseException:
            writer.close()
            if origin is None:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except OSError:
        return False


def _begin(folder: Path, identity: str) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    with atomic_write(folder / ORIGIN) as temporary:
        temporary.write_text(identity, encoding="utf-8")


def _rows(where: str, values: ArrayLike, numbers: tuple[str, ...]) -> np.ndarray:
    """Values (n, width) as finite float32."""
    given = np.asarray(values)
    if given.dtype.kind not in "fiu" or given.ndim != 2 or given.shape[1] != len(numbers) or not len(given):
        raise StoreError(
            f"{where} are {given.dtype} of the shape {given.shape}, expected numbers (n, {len(numbers)})"
        )
    with np.errstate(over="ignore"):
        rows = given.astype(np.float32)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        step, column = (int(index) for index in bad[0])
        raise StoreError(
            f"{where}: {numbers[column]} is {rows[step, column]} at step {step}, expected finite values"
        )
    return rows
