"""Predicted chunks over demonstrated actions, a panel a dimension."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from policy.atomic_write import atomic_write
from training.evaluation.offline.errors import share_of_range
from training.evaluation.offline.judgement import Judgement

MOST_PANELS, COLUMNS = 12, 3
MOST_CHUNKS = 60  # more of them are a line that nobody can read
MOST_SEEDS = 5


def plot_chunks(judgement: Judgement, path: Path) -> None:
    """Write `chunks_figure` as a picture."""
    with atomic_write(path) as temporary:
        chunks_figure(judgement).savefig(temporary, dpi=90)


def chunks_figure(judgement: Judgement) -> Figure:
    """The episode of median error: what was demonstrated, and each chunk that the policy answered.

    Of more than `MOST_PANELS` dimensions those with the largest errors are shown, as shares of their ranges.
    """
    episode = _median_episode(judgement)
    dimensions, chosen = _shown_dimensions(judgement)
    columns = min(COLUMNS, len(dimensions))
    rows = math.ceil(len(dimensions) / columns)
    figure = Figure(figsize=(max(7.0, 5.0 * columns), 1.0 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    chunks = np.flatnonzero(judgement.chunks.episodes == episode)
    title = (
        f"Episode {episode}: demonstrated actions, and the policy's chunks from demonstrated observations on"
    )
    if len(chunks) > MOST_CHUNKS:
        title += f" (the first {MOST_CHUNKS} of {len(chunks)} chunks)"
    for axes, dimension in zip(panels, dimensions, strict=False):
        _plot_dimension(axes, judgement, shown=chunks[:MOST_CHUNKS], dimension=dimension)
    for axes in panels[len(dimensions) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(dimensions) - columns) : len(dimensions)]:
        axes.set_xlabel("time (s)")
        axes.tick_params(labelbottom=True)
    figure.suptitle("\n".join(filter(None, [title, chosen])), fontsize=11)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _plot_dimension(axes: Axes, judgement: Judgement, *, shown: NDArray[np.int64], dimension: int) -> None:
    task, chunks = judgement.task, judgement.chunks
    lasts = chunks.is_demonstrated[shown]
    steps = chunks.steps[shown, None] + np.arange(lasts.shape[1])
    times = steps / task.rate
    axes.plot(
        times[lasts],
        chunks.actions[shown, :, dimension][lasts],
        color="black",
        linewidth=1.6,
        zorder=3,  # seen also where predictions scatter
        label="demonstrated",
    )
    # NaN after each chunk: nothing is drawn from one to the next.
    apart = np.pad(np.where(lasts, times, np.nan), ((0, 0), (0, 1)), constant_values=np.nan)
    seeds = judgement.sampled[:MOST_SEEDS, ..., dimension][:, shown]
    for index, sampled in enumerate(seeds):
        lines = np.pad(np.where(lasts, sampled, np.nan), ((0, 0), (0, 1)), constant_values=np.nan)
        label = f"predicted ({len(seeds)} noise seed{'s' if len(seeds) > 1 else ''})" if index == 0 else None
        axes.plot(apart.ravel(), lines.ravel(), color="tab:orange", linewidth=0.9, alpha=0.8, label=label)
    starts = np.broadcast_to(times[:, 0], seeds.shape[:2])
    axes.plot(starts, seeds[..., 0], ".", color="tab:red", markersize=3)
    axes.plot([], [], ".", color="tab:red", markersize=5, label="first action of a chunk")
    axes.set_title(task.action.names[dimension], fontsize=10)
    axes.set_ylabel(task.action.units[dimension])
    axes.grid(alpha=0.3)


def _median_episode(judgement: Judgement) -> int:
    """The episode with the median error; of two the one with the larger."""
    errors = share_of_range(judgement.errors.mean_absolute, judgement.ranges).mean(0)
    return int(judgement.summary["episodes"][np.argsort(errors)[len(errors) // 2]])


def _shown_dimensions(judgement: Judgement) -> tuple[NDArray[np.int64], str]:
    """Indices of the dimensions to plot, in their order, and how they were chosen; empty if all are shown."""
    count = judgement.task.action_dim
    if count <= MOST_PANELS:
        return np.arange(count), ""
    shares = judgement.errors.mean_absolute.mean((0, 1)) / judgement.ranges
    worst = np.argsort(-np.nan_to_num(shares, nan=-1.0), kind="stable")[:MOST_PANELS]
    chosen = f"The {MOST_PANELS} of {count} dimensions with the largest mean absolute error as a share of their range"
    return np.sort(worst), chosen
