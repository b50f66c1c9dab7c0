"""`pcm-import-demonstrations`: what people have recorded, as demonstrations to train on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING
from tqdm import tqdm

from policy.task import FASTEST, SLOWEST
from policy.task_parts import LONGEST_SIDE
from training.command import run_command
from training.data.write_demonstrations import EpisodeWriter, write_demonstrations
from training.importing.bag_messages import bags_in
from training.importing.import_report import Imported, is_episode, report
from training.importing.lerobot import open_lerobot
from training.importing.recording import (
    Advance,
    Choice,
    Dropped,
    Episode,
    EpisodeError,
    Item,
    Recording,
    RecordingError,
)
from training.importing.robomimic_hdf5 import open_hdf5
from training.importing.rosbag import open_rosbag
from training.provenance import code_version, command_line

HDF5 = (".hdf5", ".h5", ".hdf")


@dataclass(frozen=True)
class ImportConfig:
    """See `training/conf/import_demonstrations.yaml`."""

    source: str = MISSING
    output: str = MISSING
    task_name: str = ""
    parts: list[str] = field(default_factory=list)
    actions: str = ""
    rate: float | None = None
    robot: str = ""
    split: str = "none"
    image_size: list[int] | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not SLOWEST <= self.rate <= FASTEST:
            raise ValueError(f"rate must be in {SLOWEST:g} … {FASTEST:g} Hz, got {self.rate}")
        size = self.image_size
        if size is not None and not (len(size) == 2 and all(1 <= side <= LONGEST_SIDE for side in size)):
            raise ValueError(f"image_size must be [height,width] in 1 … {LONGEST_SIDE} px, got {size}")
        if not self.output.endswith(".zarr"):
            raise ValueError(f"output must end with .zarr, got {self.output!r}")

    @property
    def choice(self) -> Choice:
        return Choice(
            name=self.task_name,
            parts=tuple(self.parts),
            actions=self.actions,
            rate=self.rate,
            robot=self.robot,
            split=self.split,
            image_size=None if self.image_size is None else (self.image_size[0], self.image_size[1]),
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("import_demonstrations", ImportConfig, _import_and_say, argv=argv)


def _import_and_say(config: ImportConfig) -> None:
    print(report(import_demonstrations(config)))


def open_recording(path: Path, choice: Choice) -> Recording:
    """Open a recording of any format, told by its files.

    Raises:
        RecordingError: for no such file, none of a known format, or a choice that its format does not have.
    """
    if not path.exists():
        raise RecordingError(f"{path}: no such file or folder")
    is_lerobot = (path / "meta").is_dir()
    is_hdf5 = path.suffix in HDF5
    if (choice.robot or choice.split != "none") and (is_lerobot or is_hdf5):
        raise RecordingError(f"{path}: robot=… and split=… are for bags")
    if is_lerobot:
        return open_lerobot(path, choice)
    if is_hdf5:
        return open_hdf5(path, choice)
    if not bags_in(path):
        raise RecordingError(
            f"{path}: of no known format: LeRobot has meta/info.json, HDF5 ends with {' or '.join(HDF5)}, "
            "a rosbag2 has metadata.yaml or ends with .mcap or .db3, and a folder of bags holds some"
        )
    return open_rosbag(path, choice)


def import_demonstrations(config: ImportConfig) -> Imported:
    """Import a recording. A run that was killed, or that failed, goes on where it has stopped.

    Raises:
        RecordingError: for a recording that cannot be opened, or of which no episode can be imported.
        EpisodeError: for one that cannot be imported, unless `skip_bad`.
        StoreError: if there is something at the output, or another process writes it.
    """
    recording = open_recording(Path(config.source), config.choice)
    origin = {
        "source": str(recording.path.resolve()),
        "files": _fingerprint([recording.path, *([Path(config.robot)] if config.robot else [])]),
        "choice": asdict(config.choice),
    }
    provenance: dict[str, Any] = {
        "format": recording.format,
        "source": recording.path.name,
        "command": command_line(),
        "code": code_version(),
    }
    with write_demonstrations(config.output, recording.task, origin=origin, provenance=provenance) as writer:
        _write(recording, writer, skip_bad=config.skip_bad)
        if not writer.ends:
            reasons = "; ".join(reason for _, reason in writer.dropped[:1])
            raise RecordingError(f"{recording.path}: no episode can be imported{reasons and f': {reasons}'}")
        imported = Imported(
            path=Path(config.output),
            recording=recording,
            ends=tuple(writer.ends),
            dropped=tuple(writer.dropped),
            frames=dict(writer.counts),
        )
        provenance["bad_episodes"] = imported.bad_episodes
    return imported


def _write(recording: Recording, writer: EpisodeWriter, *, skip_bad: bool) -> None:
    """Write the episodes that are not written yet."""
    names = recording.episodes
    written, first = set(writer.sources), _first_unfinished(names, writer.sources)
    if not skip_bad:
        for name, reason in writer.dropped:
            if is_episode(name, names):
                raise EpisodeError(reason, name)
    with tqdm(
        total=len(names),
        initial=first,
        desc="import",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
    ) as progress:
        for index in range(first, len(names)):
            end = index + 1

            def advance(share: float, end: int = end) -> None:
                progress.update(max(0.0, min(share, end - progress.n)))

            for item in _items(recording, index, advance):
                if item.name in written:
                    continue
                bad = _append(writer, item) if isinstance(item, Episode) else item
                if isinstance(bad, Dropped):
                    writer.drop(bad.name, bad.reason)
                elif bad is not None and skip_bad:
                    writer.drop(bad.name, str(bad))
                elif bad is not None:
                    raise EpisodeError(f"{bad} (skip_bad=true imports the others)", bad.name)
            progress.update(end - progress.n)


def _append(writer: EpisodeWriter, episode: Episode) -> EpisodeError | None:
    """Write an episode; what is wrong with its pictures, which are read only now."""
    try:
        writer.append(episode.observations, episode.actions, pictures=episode.pictures, source=episode.name)
    except EpisodeError as error:
        error.name = episode.name
        return error
    for camera, counts in episode.frames.items():
        writer.count({f"{camera}.{fate}": number for fate, number in counts.items()})
    return None


def _items(recording: Recording, index: int, advance: Advance) -> Iterator[Item]:
    """What reading a recorded episode gives, an error as the last item."""
    try:
        yield from recording.read(index, advance)
    except EpisodeError as error:
        error.name = recording.episodes[index]
        yield error


def _first_unfinished(names: Sequence[str], written: Sequence[str]) -> int:
    """Index of the recorded episode to go on with: the last one that was begun, as more of it may be missing."""
    if not written:
        return 0
    indices = {name: index for index, name in enumerate(names)}
    last = written[-1]
    return indices[last if last in indices else last.rpartition("#")[0]]


def _fingerprint(paths: Sequence[Path]) -> str:
    """Hash of names, sizes and times of change of files, so that a changed recording is not taken for the old one."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            found = file.stat()
            digest.update(f"{file.relative_to(path)}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
