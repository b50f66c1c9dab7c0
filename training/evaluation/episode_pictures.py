"""Pictures of episodes: reward curves, final frames, a film strip, a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from policy import Task
from policy.atomic_write import atomic_write
from training.evaluation.episode import Episode


def plot_rewards(episodes: Sequence[Episode], path: Path, title: str, *, rate: float) -> None:
    """Rewards of every episode over time, and the mean of the best reward so far."""
    steps = max(episode.steps for episode in episodes)
    best = np.stack(
        # An episode that ended keeps its best reward.
        [np.pad(np.maximum.accumulate(e.rewards), (0, steps - e.steps), mode="edge") for e in episodes]
    )
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for index, episode in enumerate(episodes):
        label = "episodes" if index == 0 else None
        axes.plot(np.arange(1, episode.steps + 1), episode.rewards, color="0.75", linewidth=0.8, label=label)
    axes.plot(
        np.arange(1, steps + 1), best.mean(0), color="tab:green", linewidth=2.5, label="mean of best so far"
    )
    axes.set(xlabel=f"control step ({1 / rate:g} s)", ylabel="reward", xlim=(1, max(2, steps)))
    if best.min() >= 0 and best.max() <= 1:
        axes.set(ylim=(0, 1.02))
    axes.set_title(f"{title}: mean maximum reward {best[:, -1].mean():.3f} over {len(episodes)} episodes")
    axes.legend(loc="lower right")
    _save(figure, path)


def plot_final_frames(episodes: Sequence[Episode], path: Path) -> None:
    """The last frame of every recorded episode."""
    columns = min(5, len(episodes))
    rows = math.ceil(len(episodes) / columns)
    figure = Figure(figsize=(2.2 * columns, 2.45 * rows), layout="constrained")
    for index, episode in enumerate(episodes):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.imshow(episode.frames[-1])
        axes.set_title(f"seed {episode.seed}: {episode.max_reward:.2f}", fontsize=9)
        axes.set_axis_off()
    _save(figure, path)


def plot_commands(episode: Episode, path: Path, task: Task) -> None:
    """What was commanded over time, with the seams between chunks marked."""
    assert episode.commands is not None
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    times = np.arange(episode.steps) / task.rate
    for name, values in zip(task.action.names, episode.commands.T, strict=True):
        axes.plot(times, values, ".-", markersize=3, linewidth=1, label=name)
    for index, chunk in enumerate(episode.chunks):
        seam = (chunk.step + chunk.skipped_points) / task.rate
        axes.axvline(
            seam, color="0.8", linewidth=0.8, zorder=0, label="a chunk begins" if index == 0 else None
        )
    axes.set(
        xlabel="time (s)",
        ylabel=f"command ({', '.join(dict.fromkeys(filter(None, task.action.units))) or 1})",
        title=f"seed {episode.seed}",
    )
    axes.legend(loc="best")
    _save(figure, path)


def plot_film_strip(episode: Episode, path: Path, pictures: int = 6, *, rate: float) -> None:
    """One episode from its first to its last frame."""
    shown = np.unique(np.linspace(0, episode.steps, pictures).round().astype(int))
    figure = Figure(figsize=(2.2 * len(shown), 2.4), layout="constrained")
    for index, step in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), index + 1)
        axes.imshow(episode.frames[step])
        axes.set_title(f"{step / rate:.1f} s", fontsize=10)
        axes.set_axis_off()
    _save(figure, path)


def write_video(episodes: Sequence[Episode], path: Path, *, rate: float) -> None:
    """All recorded episodes side by side, in real time."""
    with atomic_write(path) as temporary:
        writer: Any = imageio.get_writer(temporary, fps=rate, macro_block_size=2)
        with writer as video:
            for step in range(max(len(episode.frames) for episode in episodes)):
                video.append_data(_mosaic(episodes, step))


def _mosaic(episodes: Sequence[Episode], step: int) -> NDArray[np.uint8]:
    columns = min(5, len(episodes))
    rows = math.ceil(len(episodes) / columns)
    height, width, _ = episodes[0].frames[0].shape
    picture = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, episode in enumerate(episodes):
        row, column = divmod(index, columns)
        frame = episode.frames[min(step, len(episode.frames) - 1)]
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width] = frame
    return picture


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110)
