"""How fast parallel samplers approach the sequential answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, isna

from policy.checkpoint import tensors_sha256
from policy.sampling.recurrence import JACOBIANS
from training.benchmark.candidates import load_pcm_files
from training.benchmark.config import BenchmarkConfig
from training.benchmark.report import held_out_observations, load_policy, open_cache, write_report
from training.benchmark.reports.convergence_curves import MEMORY, UNTRAINED, Curve, Setting, curves
from training.benchmark.reports.convergence_states import (
    equal_rewards,
    map_task,
    mapped_samplers,
    plot_heatmap,
    plot_summary,
)
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table

CURVE = {"sampler": "sampler", "jacobian": "jacobian", "start": "start", "stiffness": "s"}
"""Columns that tell curves of the same T apart, and what they are called in a table."""
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
NEWTON_ITERATIONS = (1, 2, 3, 4, 5, 6, 8)
COLORS = dict(
    zip((*JACOBIANS, "newton"), ("0.6", "tab:orange", "tab:blue", "tab:green", "black"), strict=True)
)
INTRODUCTION = (
    "95th percentile over {observations} held-out observations of the largest difference of a normalised action from "
    "the sequential answer with the same noise, solver and T; the solver is DDIM, or the one that a PCM was trained "
    "for. Depth: sequential network evaluations, those of the start included. An iteration of Newton's method is as "
    "deep as it has states to change, so that Newton's method is shown by iteration. picard_memory_{memory}: Anderson "
    "acceleration over as many earlier iterates. parasolver: sub-intervals of the fewest steps that divide T. "
    "untrained: the sampler of a PCM, without it. The heat map shows the same error for each state, iteration by "
    "iteration; each iteration makes one more state exact."
)


def report(config: BenchmarkConfig) -> None:
    """Write the report `convergence`.

    Raises:
        ValueError: if the policy has no covariance, there is nothing to follow or no such table of rewards.
    """
    marks = equal_rewards(config.convergence.rewards)
    policy = load_policy(config)
    observations = held_out_observations(config, policy)
    setting = Setting(
        policy=policy, observations=observations, iterations=config.iterations, seed=config.seed
    )
    cache = open_cache(
        config,
        policy,
        observations_sha256=tensors_sha256({"": observations}),
        iterations=config.iterations,
        seed=config.seed,
    )
    pcms = load_pcm_files(config.pcm, policy)
    followed = curves(config, pcms)
    if not followed:
        raise ValueError("there is nothing to follow: steps and pcm are both empty")
    tasks = [_task(curve, setting) for curve in followed]
    mapped = mapped_samplers(config, pcms)
    map_tasks = [map_task(one, setting) for one in mapped]
    cache.measure_all([*tasks, *map_tasks], "convergence")

    rows = DataFrame(
        [
            {**curve.columns, **point}
            for curve, task in zip(followed, tasks, strict=True)
            for point in cache.read(task)["points"]
        ]
    )
    maps = [(one, cache.read(task)) for one, task in zip(mapped, map_tasks, strict=True)]
    write_report(
        config,
        rows,
        title="Convergence to the sequential answer",
        introduction=INTRODUCTION.format(observations=len(observations), memory=MEMORY),
        tables=format_convergence(rows),
        figures={
            "": plot_convergence(rows),
            "_heatmap": plot_heatmap(maps),
            "_summary": plot_summary(maps, marks),
        },
        measured=[cache.read(task) for task in (*tasks, *map_tasks)],
    )


def _task(curve: Curve, setting: Setting) -> Task:
    def measure() -> Row:
        return {"points": [point._asdict() for point in curve.follow(setting)]}

    columns = curve.columns
    return Task(
        label=", ".join(str(value) for value in columns.values() if value is not None),
        cost=curve.cost * len(setting.observations),
        # Its weights decide, and not the stiffness that they come from.
        identity={**columns, "stiffness": None, **curve.decisive},
        measure=measure,
    )


def format_convergence(rows: DataFrame) -> str:
    """Markdown tables of the 95th percentile of the error, at each T by depth, for Newton's method by iteration."""
    newton = rows["sampler"] == "newton"
    parts = {}
    for steps, of_steps in rows[~newton].groupby("steps"):
        depths = [depth for depth in DEPTHS if depth <= steps]
        parts[f"T = {steps}"] = _errors_by(of_steps, "depth", depths, titles=CURVE)
    by_iteration = _errors_by(
        rows[newton], "iterations", NEWTON_ITERATIONS, titles={"start": "start", "steps": "T"}
    )
    parts["Newton's method"] = by_iteration
    return "\n\n".join(f"### {title}\n\n{cells}" for title, cells in parts.items())


def _errors_by(rows: DataFrame, column: str, shown: Sequence[int], *, titles: Mapping[str, str]) -> str:
    """A Markdown table with a row for each curve, told apart by the columns of `titles`, in the order of the rows."""
    named = rows.assign(**{title: rows[name].map(_text) for name, title in titles.items()})
    curve = list(titles.values())
    points = named.groupby([*curve, column], sort=False)["error_p95"].last()
    errors = points.unstack(column).reindex(columns=shown)
    cells = named[curve].drop_duplicates().merge(errors.reset_index(), on=curve)
    columns: dict[Any, tuple[str, str]] = {title: (title, "") for title in curve}
    columns |= {number: (f"{column.removesuffix('s')} {number}", ".2g") for number in shown}
    return markdown_table(cells, columns, text_columns=len(curve))


def _text(cell: Any) -> str:
    if isna(cell):
        return ""
    return cell if isinstance(cell, str) else f"{cell:g}"


def plot_convergence(rows: DataFrame) -> Figure:
    """Errors by depth: a line of panels for each start, a column for each T; then a panel for each PCM."""
    untrained = rows["sampler"].str.startswith(UNTRAINED)
    training_free = rows[rows["stiffness"].isna() & ~untrained]
    pcms = rows[rows["stiffness"].notna()].groupby(["sampler", "steps", "jacobian", "start"], sort=False)
    starts = training_free["start"].unique()
    all_steps = sorted(training_free["steps"].unique())
    columns = max(len(all_steps), 1)
    height = len(starts) + -(-len(pcms) // columns)
    figure = Figure(figsize=(4 * columns + 2.5, 2.8 * height), layout="constrained")
    panels = figure.subplots(height, columns, sharey=True, squeeze=False)
    for line, start in zip(panels, starts, strict=False):
        for axes, steps in zip(line, all_steps, strict=True):
            of_panel = (training_free["steps"] == steps) & (training_free["start"] == start)
            _plot_jacobians(axes, training_free[of_panel])
            axes.set_title(f"T = {steps}, start {start}", fontsize=9)
        line[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    rest = list(panels[len(starts) :].flat)
    for axes, ((sampler, *settings), of_pcm) in zip(rest, pcms, strict=False):
        twin = re.sub("pcm_(feature|parameter)", UNTRAINED, sampler)
        _plot_pcm(axes, of_pcm, rows[rows["sampler"] == twin])
        kind, _, file = sampler.partition(":")
        axes.set_title(f"{kind}, T = {', '.join(map(str, settings))}\n{file}", fontsize=9)
        axes.legend(fontsize=8)
    for axes in rest[len(pcms) :]:
        axes.remove()
    return figure


def _plot_jacobians(axes: Axes, rows: DataFrame) -> None:
    for (sampler, jacobian), curve in rows.groupby(["sampler", "jacobian"], sort=False):
        style = {"linestyle": "--", "label": f"{jacobian}, memory"}
        if sampler == "picard":
            style = {"linestyle": "-", "label": jacobian}
        elif sampler == "parasolver":
            style = {"linestyle": "-.", "label": sampler}
        elif sampler == "newton":  # as if an iteration were of depth 1, like all others
            curve = curve.assign(depth=curve["depth"].iloc[0] + curve["iterations"])
            style = {"linestyle": ":", "label": "newton, by iteration"}
        _draw(axes, curve, color=COLORS[jacobian], **style)
    # ParaSolver's iterations are deeper than the others', which it would push together.
    axes.set_xlim(0, rows.loc[rows["sampler"] == "picard", "depth"].max() + 0.5)


def _plot_pcm(axes: Axes, rows: DataFrame, untrained: DataFrame) -> None:
    """A curve for each stiffness, one for all that make no difference; and the same sampler without a PCM."""
    _draw(axes, untrained, color="black", linestyle=":", label="without it")
    different: dict[tuple[float, ...], list[float]] = {}
    for s, curve in rows.groupby("stiffness"):
        different.setdefault(tuple(curve["error_p95"]), []).append(s)
    for index, same in enumerate(different.values()):
        color = colormaps["viridis"](index / max(len(different) - 1, 1) * 0.9)
        label = "s = " + ", ".join(f"{s:g}" for s in same)
        _draw(axes, rows[rows["stiffness"] == same[0]], color=color, label=label)


def _draw(axes: Axes, curve: DataFrame, **style: Any) -> None:
    axes.plot(curve["depth"], curve["error_p95"], **style)
    axes.set(xlabel="depth", ylabel="95th percentile", yscale="log", ylim=(1e-6, 5))
    axes.grid(alpha=0.3)
