"""The report `warm_start` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.benchmark.config import WarmStartConfig
from training.benchmark.report import markdown_table


def describe_warm_start(options: WarmStartConfig) -> str:
    """What was measured, and what the columns mean."""
    return (
        f"{options.episodes} episodes (initial states from seed {options.first_seed}) of at most {options.max_steps} "
        "control steps, executed by sequential DDIM at the same T. For each chunk but an episode's first: the depth of "
        "preconditioned Picard iteration until its largest difference of a normalised action from sequential DDIM with "
        f"the same noise is below {options.error:g}, from a cold start and from the chunk before. Depth counts network "
        "evaluations one after the other, that of the Gaussian start included. Saved: how much less, in the mean, "
        "than from a cold start. The same again for the actions of the chunk alone, those that are executed: most of "
        "them were predicted with the chunk before.\n\nNoise: drawn anew for each chunk, or moved along with the "
        "actions, which changes the answers, and with them reward (largest in an episode, with the 95 % interval of "
        "its mean) and jump (distance in px of a chunk's targets from those that the one before predicted for the same "
        "control steps)."
    )


def format_warm_start(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, one row for each T, noise and start."""
    saved = ("saved of fresh", "saved of gaussian")
    columns = ("noise", "start", "T", "depth", "p95", *saved, "chunk's depth", *saved, "reward", "jump")
    return markdown_table(columns, [_cells(row) for row in rows], text_columns=2)


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["reward_low"], row["reward_high"]
    interval = "" if low is None else f" ({low:.3f} … {min(1.0, high):.3f})"
    return [
        row["noise"],
        row["start"],
        str(row["steps"]),
        f"{row['depth_mean']:.2f}",
        f"{row['depth_p95']:g}",
        f"{row['saved_of_fresh']:.0%}",
        f"{row['saved_of_gaussian']:.0%}",
        f"{row['chunk_depth_mean']:.2f}",
        f"{row['chunk_saved_of_fresh']:.0%}",
        f"{row['chunk_saved_of_gaussian']:.0%}",
        f"{row['reward']:.3f}{interval}",
        f"{row['jump_px']:.1f}",
    ]


def plot_warm_start(depths: Mapping[tuple[int, bool], Mapping[str, Sequence[int]]]) -> Figure:
    """Share of chunks that have converged by depth: a panel for each T, dashed where the noise is moved along."""
    all_steps = list(dict.fromkeys(steps for steps, _ in depths))
    figure = Figure(figsize=(max(9, 1 + 4.5 * len(all_steps)), 4), layout="constrained")
    panels = dict(
        zip(all_steps, figure.subplots(1, len(all_steps), sharey=True, squeeze=False)[0], strict=True)
    )
    for (steps, move_noise), starts in depths.items():
        axes = panels[steps]
        deepest = max(
            max(found) for key, other in depths.items() if key[0] == steps for found in other.values()
        )
        for number, (start, found) in enumerate(starts.items()):
            by_depth = range(deepest + 1)
            shares = [float(np.mean(np.array(found) <= depth)) for depth in by_depth]
            label = f"{start}, noise moved along" if move_noise else start
            line = "--" if move_noise else "-"
            axes.plot(by_depth, shares, line, color=f"C{number}", marker="o", markersize=4, label=label)
        axes.set(title=f"T = {steps}", xlabel="depth", ylim=(0, 1.02))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    first = panels[all_steps[0]]
    first.set_ylabel("share of chunks that have converged")
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure
