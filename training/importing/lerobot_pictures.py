"""Pictures of LeRobot datasets: videos, one an episode (v2.1) or of many (v3.0), or encoded pictures in a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from policy.robot.observation_history import RejectedObservation
from policy.robot.pictures import Picture, decode_picture, resize_picture
from training.importing.lerobot_metadata import (
    Metadata,
    chunks_size,
    episode_rows,
    templated_path,
    whole,
)
from training.importing.parquet_rows import TableError, cells
from training.importing.recording import EpisodeError, RecordingError, count_frames
from training.importing.video_frames import VideoError, frames_at

LONGEST = 1e7
"""Of a video, in s."""


@dataclass(frozen=True)
class Clip:
    """Where an episode's video is: path below the dataset, and s since its beginning."""

    video: str
    start: float


Pictures: TypeAlias = Callable[[int, NDArray[np.float64], Counter[str]], Iterator[Picture]]
"""(episode, times (n,) of its rows in s, where frames are counted) → n pictures in the size of the part."""


def picture_reader(metadata: Metadata, column: str, size: tuple[int, int]) -> Pictures:
    """How the pictures of a column are read, as (height, width).

    Raises:
        RecordingError: for metadata that do not say where its videos are.
    """
    height, width = size
    is_video = metadata.features[column].kind == "video"
    clips = _clips(metadata, column) if is_video else {}

    def pictures(episode: int, times: NDArray[np.float64], counter: Counter[str]) -> Iterator[Picture]:
        if is_video:
            if episode not in clips:
                raise EpisodeError(f"{metadata.file}: episode {episode} has no video of {column!r}")
            found = _of_video(metadata, episode, clips[episode], times=times, counter=counter)
        else:
            found = _of_column(metadata, column, episode, counter=counter)
        for picture in found:
            yield resize_picture(picture, height=height, width=width)

    return pictures


def _clips(metadata: Metadata, column: str) -> Mapping[int, Clip]:
    """Each episode's clip of a column of videos."""
    path, info = metadata.path, metadata.info

    def clip(start: float, **values: int) -> Clip:
        return Clip(templated_path(path, info, "video_path", values={"video_key": column, **values}), start)

    if metadata.version == "v2.1":
        size = chunks_size(path, info)
        return {
            index: clip(0.0, episode_chunk=index // size, episode_index=index) for index in metadata.episodes
        }
    names = [f"videos/{column}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    found: dict[int, Clip] = {}
    for file, (episode, chunk, number, start) in episode_rows(path, ["episode_index", *names]):
        if not 0 <= start < LONGEST:
            raise RecordingError(f"{file}: {names[2]} must be in 0 … {LONGEST:g} s, got {start}")
        found[whole(file, "episode_index", episode)] = clip(
            start,
            chunk_index=whole(file, names[0], chunk),
            file_index=whole(file, names[1], number),
        )
    return found


def _of_video(
    metadata: Metadata, episode: int, clip: Clip, *, times: NDArray[np.float64], counter: Counter[str]
) -> Iterator[Picture]:
    path = metadata.path / clip.video
    try:
        yield from frames_at(path, clip.start + times, tolerance=1 / metadata.rate, counter=counter)
    except VideoError as error:
        raise EpisodeError(f"{path}: episode {episode}: {error}") from error


def _of_column(metadata: Metadata, column: str, episode: int, *, counter: Counter[str]) -> Iterator[Picture]:
    rows = metadata.episodes[episode]
    assert rows is not None  # its numbers were read already
    path: Path = metadata.path / rows.table
    where = f"{path}: episode {episode}: column {column!r}"
    try:
        for row, cell in enumerate(cells(path, column, first=rows.first, count=rows.count)):
            if cell is None:
                raise EpisodeError(f"{where} holds no picture in row {row}, only the path of one or nothing")
            try:
                yield decode_picture(cell)
            except RejectedObservation as error:
                raise EpisodeError(f"{where} in row {row}: {error}") from error
    except TableError as error:
        raise EpisodeError(f"{where}: {error}") from error
    count_frames(counter, range(rows.count), read=rows.count)
