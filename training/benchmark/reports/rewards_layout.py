"""The report `table3` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from training.benchmark.config import Table3Config
from training.benchmark.measurements import EPISODE_STEPS
from training.benchmark.report import markdown_table
from training.benchmark.reports.rewards_rows import TableRow, gain_columns, reward_columns

MARKERS = "osD^vP*X<>hpd"
PLOTTED_STEPS = EPISODE_STEPS[0]
REWARD_TICKS = (0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1)
STRETCHED_TO = 1.05
DEPTH_TICKS = (2, 3, 4, 5, 8, 10, 15, 25, 50)


def describe_table(table: Table3Config, reference_steps: int, conditions: int) -> str:
    """What the columns mean."""
    short, long = EPISODE_STEPS
    seeds = f"{len(table.noise_seeds)} noise seed{'s' if len(table.noise_seeds) > 1 else ''}"
    return (
        f"Reward: mean over {table.episodes} episodes (initial states from seed {table.first_seed}) × {seeds} of the "
        f"largest reward in the first {short} and {long} control steps, with its 95 % interval over episodes. "
        f"Milliseconds: observation to chunk at batch size 1, {table.timed_calls} calls of each row or a few more, all "
        f"rows in turns. Depth counts network evaluations one after the other, those for the initial trajectory "
        f"included; network evaluations are samples × timesteps for one chunk. Equal: the fastest sequential sampler "
        f"whose mean rewards lie in the row's intervals or above. Errors: 95th percentile over {conditions} held-out "
        f"observations of the largest difference of a normalised action from a sequential sampler's with the same "
        f"noise: that of the row's solver at the same T, and DDIM at T = {reference_steps}. An empty cell was not "
        "measured."
    )


def format_table(rows: Sequence[TableRow], reference_steps: int) -> str:
    """A Markdown table for the sequential samplers and one for each T of the parallel ones."""
    columns = (
        "method",
        "equal",
        "T",
        "depth",
        "evaluations",
        *(f"reward at {steps}" for steps in EPISODE_STEPS),
        "ms p50",
        "ms p99",
        f"× DDIM-{reference_steps}",
        "× equal",
        "error",
        f"error to DDIM-{reference_steps}",
    )
    sequential = [row for row in rows if row["formulation"] is None]
    parts = {"Sequential": sequential}
    for row in rows:
        if row["formulation"] is not None:
            parts.setdefault(f"T = {row['steps']}", []).append(row)
    tables = [
        f"### {title}\n\n{markdown_table(columns, [_cells(row) for row in part], text_columns=2)}"
        for title, part in parts.items()
    ]
    if trained := [row for row in rows if row["error_p95_untrained"] is not None]:
        tables.append(_format_gains(trained))
    return "\n\n".join(tables)


def _format_gains(trained: Sequence[TableRow]) -> str:
    """A Markdown table of PCMs beside the same samplers without them."""
    gains = [f"gain at {steps}" for steps in EPISODE_STEPS]
    cells = [
        [
            row["method"],
            str(row["steps"]),
            str(row["depth"]),
            _number(row["error_p95_untrained"], ".2g"),
            _number(row["error_p95"], ".2g"),
            *(_gain(*(row[name] for name in gain_columns(steps))) for steps in EPISODE_STEPS),
        ]
        for row in trained
    ]
    table = markdown_table(("PCM", "T", "depth", "error without", "error", *gains), cells, text_columns=1)
    return (
        "### PCMs, and the same samplers without them\n\n"
        "Gain: how much more reward in the same episodes with the same noises, in the mean, with its 95 % interval "
        f"over episodes.\n\n{table}"
    )


def _gain(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:+.3f}" + ("" if low is None else f" ({low:+.3f} … {high:+.3f})")


def _cells(row: TableRow) -> list[str]:
    rewards = []
    for steps in EPISODE_STEPS:
        mean, low, high = (row[name] for name in reward_columns(steps))
        interval = "" if low is None else f" ({max(0.0, low):.3f} … {min(1.0, high):.3f})"
        rewards.append("" if mean is None else f"{mean:.3f}{interval}")
    return [
        row["method"],
        "" if row["equal_method"] is None else f"{row['equal_method']}, T = {row['equal_steps']}",
        str(row["steps"]),
        str(row["depth"]),
        f"{row['network_evaluations']:g}",
        *rewards,
        _number(row["ms_p50"], ".1f"),
        _number(row["ms_p99"], ".1f"),
        _number(row["speedup"], ".2f"),
        _number(row["speedup_to_equal"], ".2f"),
        _number(row["error_p95"], ".2g"),
        _number(row["error_p95_reference"], ".2g"),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def plot_table(rows: Sequence[TableRow]) -> Figure:
    """Reward over depth and over milliseconds, a column of panels for each T, a marker for each method.

    The sequential samplers are in every panel; the band is the interval of the one with the most steps.
    """
    mean, low, high = reward_columns(PLOTTED_STEPS)
    rewarded = [row for row in rows if row[mean] is not None]
    sequential = [row for row in rewarded if row["formulation"] is None]
    parallel = [row for row in rewarded if row["formulation"] is not None]
    reference = max(sequential, key=lambda row: row["steps"], default=None)
    all_steps: list[int | None] = list(dict.fromkeys(row["steps"] for row in parallel)) or [None]
    methods = list(dict.fromkeys(row["method"] for row in rewarded))
    # Wide enough for the legend.
    figure = Figure(figsize=(max(9.5, 1.5 + 3.6 * len(all_steps)), 7.5), layout="constrained")
    panels = figure.subplots(2, len(all_steps), sharey=True, sharex="row", squeeze=False)
    for column, steps in enumerate(all_steps):
        shown = [*sequential, *(row for row in parallel if row["steps"] == steps)]
        for axes, x in zip(panels[:, column], ("depth", "ms_p50"), strict=True):
            if reference is not None and reference[low] is not None:
                axes.axhspan(reference[low], reference[high], color="0.92", zorder=0)
            for method in methods:
                points = [row for row in shown if row["method"] == method and row[x] is not None]
                _plot_method(axes, points, x, mean, method, methods.index(method))
            axes.set(xscale="log", xlabel="depth" if x == "depth" else "ms per chunk, median")
            axes.xaxis.set_major_locator(
                FixedLocator(DEPTH_TICKS) if x == "depth" else LogLocator(subs=(1, 2, 5))
            )
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.grid(alpha=0.3)
        panels[0, column].set(title="" if steps is None else f"parallel: T = {steps}")
    for axes in panels[:, 0]:
        axes.set_yscale("function", functions=(_stretch, _shrink))
        axes.set(yticks=REWARD_TICKS, ylabel=f"mean maximum reward, {PLOTTED_STEPS} steps")
    handles: dict[str, Artist] = {}
    for axes in panels.flat:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _stretch(reward: NDArray[np.float64]) -> NDArray[np.float64]:
    """To an axis on which good rewards, most of what is plotted, can be told apart."""
    return -np.log(np.maximum(STRETCHED_TO - reward, 1e-9))


def _shrink(height: NDArray[np.float64]) -> NDArray[np.float64]:
    return STRETCHED_TO - np.exp(-height)


def _plot_method(axes: Axes, rows: Sequence[TableRow], x: str, y: str, label: str, number: int) -> None:
    if not rows:
        return
    points = sorted((row[x], row[y]) for row in rows)
    axes.plot(
        *zip(*points, strict=True),
        marker=MARKERS[number % len(MARKERS)],
        color=f"C{number % 10}",
        linestyle="--" if rows[0]["formulation"] is None else "-",
        markersize=5,
        linewidth=1,
        label=label,
    )
