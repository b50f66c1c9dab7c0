"""The report `rewards` as Markdown and as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray
from pandas import DataFrame, isna

from training.benchmark.config import RewardsConfig
from training.benchmark.measurements import EPISODE_STEPS
from training.benchmark.tables import markdown_table

MARKERS = "osD^vP*X<>hpd"
PLOTTED_STEPS = EPISODE_STEPS[0]
REWARD_TICKS = (0, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1)
STRETCHED_TO = 1.05
DEPTH_TICKS = (2, 3, 4, 5, 8, 10, 15, 25, 50)


def describe_rewards(options: RewardsConfig, reference_steps: int, observations: int) -> str:
    """What the columns mean."""
    short, long = EPISODE_STEPS
    seeds = f"{len(options.noise_seeds)} noise seed{'s' if len(options.noise_seeds) > 1 else ''}"
    return (
        f"Reward: mean over {options.episodes} episodes (initial states from seed {options.first_seed}) × {seeds} of "
        f"the largest reward in the first {short} and {long} control steps, with its 95 % interval over episodes "
        f"(bootstrap). Milliseconds: observation to chunk at batch size 1, at least {options.timed_calls} calls of "
        "each row, all rows in turns. Depth: sequential network evaluations, those of the start included. Evaluations: "
        "samples × timesteps that go through the network for one chunk. Equal: the fastest sequential sampler whose "
        f"mean rewards lie in the row's intervals or above. Errors: 95th percentile over {observations} held-out "
        "observations of the largest difference of a normalised action from a sequential sampler's with the same "
        f"noise: that of the row's solver at the same T, and DDIM at T = {reference_steps}. An empty cell was not "
        "measured."
    )


def format_rewards(rows: DataFrame, reference_steps: int) -> str:
    """A Markdown table for the sequential samplers, one for each T of the parallel ones, and one of the PCMs' gains."""
    columns = {
        "sampler": ("sampler", ""),
        "equal": ("equal", ""),
        "steps": ("T", "d"),
        "depth": ("depth", "d"),
        "network_evaluations": ("evaluations", "g"),
        **{f"reward_{steps}": (f"reward at {steps}", ".3f") for steps in EPISODE_STEPS},
        "ms_p50": ("ms p50", ".1f"),
        "ms_p99": ("ms p99", ".1f"),
        "speedup": (f"× DDIM-{reference_steps}", ".2f"),
        "speedup_to_equal": ("× equal", ".2f"),
        "error_p95": ("error", ".2g"),
        "error_p95_reference": (f"error to DDIM-{reference_steps}", ".2g"),
    }
    equal = rows[["equal_sampler", "equal_steps"]].itertuples(index=False)
    cells = rows.assign(equal=[None if isna(name) else f"{name}, T = {steps}" for name, steps in equal])
    parallel = cells["method"] != "sequential"
    parts = {"Sequential": cells[~parallel]}
    parts |= {f"T = {steps}": part for steps, part in cells[parallel].groupby("steps", sort=False)}
    tables = [
        f"### {title}\n\n{markdown_table(part, columns, text_columns=2)}" for title, part in parts.items()
    ]
    trained = rows[rows["error_p95_untrained"].notna()]
    return "\n\n".join([*tables, *([] if trained.empty else [_format_gains(trained)])])


def _format_gains(trained: DataFrame) -> str:
    """A Markdown table of PCMs beside the same samplers without them."""
    columns = {
        "sampler": ("PCM", ""),
        "steps": ("T", "d"),
        "depth": ("depth", "d"),
        "error_p95_untrained": ("error without", ".2g"),
        "error_p95": ("error", ".2g"),
        **{f"gain_{steps}": (f"gain at {steps}", "+.3f") for steps in EPISODE_STEPS},
    }
    return (
        "### PCMs, and the same samplers without them\n\n"
        "Gain: how much more reward in the same episodes with the same noises, in the mean, with its 95 % interval "
        f"over episodes.\n\n{markdown_table(trained, columns)}"
    )


def plot_rewards(rows: DataFrame) -> Figure:
    """Reward over depth and over milliseconds, a column of panels for each T, a marker for each sampler.

    The sequential samplers are in every panel; the band is the interval of the one with the most steps.
    """
    mean, low, high = (f"reward_{PLOTTED_STEPS}{end}" for end in ("", "_low", "_high"))
    rewarded = rows[rows[mean].notna()]
    parallel = rewarded["method"] != "sequential"
    sequential = rewarded[~parallel]
    reference = sequential.nlargest(1, "steps")
    all_steps = list(rewarded.loc[parallel, "steps"].unique()) or [None]
    names = list(rewarded["sampler"].unique())
    # Wide enough for the legend.
    figure = Figure(figsize=(max(9.5, 1.5 + 3.6 * len(all_steps)), 7.5), layout="constrained")
    panels = figure.subplots(2, len(all_steps), sharey=True, sharex="row", squeeze=False)
    for column, steps in enumerate(all_steps):
        shown = rewarded[~parallel | (rewarded["steps"] == steps)]
        for axes, x in zip(panels[:, column], ("depth", "ms_p50"), strict=True):
            if reference[low].notna().any():
                axes.axhspan(reference[low].item(), reference[high].item(), color="0.92", zorder=0)
            for name, points in shown[shown[x].notna()].groupby("sampler", sort=False):
                number = names.index(name)
                points = points.sort_values(x)
                axes.plot(
                    points[x],
                    points[mean],
                    marker=MARKERS[number % len(MARKERS)],
                    color=f"C{number % 10}",
                    linestyle="--" if (points["method"] == "sequential").all() else "-",
                    markersize=5,
                    linewidth=1,
                    label=name,
                )
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
