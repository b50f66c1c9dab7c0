"""The report `convergence` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from policy.sampling.recurrence import FORMULATIONS
from training.benchmark.report import markdown_table
from training.benchmark.reports.convergence_curves import UNTRAINED
from training.benchmark.row_cache import Row

CURVE = ("sampler", "formulation", "initialisation", "stiffness")
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
NEWTON_ITERATIONS = (1, 2, 3, 4, 5, 6, 8)
COLORS = dict(
    zip((*FORMULATIONS, "newton"), ("0.6", "tab:orange", "tab:blue", "tab:green", "black"), strict=True)
)


def format_convergence(rows: Sequence[Row]) -> str:
    """Markdown tables of the 95th percentile of the error, at each T by depth, for Newton's method by iteration."""
    parts = []
    for (steps,), of_steps in sorted(_group(_but_newton(rows), "steps").items()):
        depths = [depth for depth in DEPTHS if depth <= steps]
        cells = []
        for name, curve in _group(of_steps, *CURVE).items():
            errors = {row["depth"]: row["error_p95"] for row in curve}
            cells.append([*map(_text, name), *(_text(errors.get(depth)) for depth in depths)])
        columns = ("sampler", "formulation", "initial trajectory", "s", *(f"depth {d}" for d in depths))
        parts.append(f"### T = {steps}\n\n{markdown_table(columns, cells, len(CURVE))}")
    cells = []
    for name, curve in _group(_newton(rows), "initialisation", "steps").items():
        errors = {row["iterations"]: row["error_p95"] for row in curve}
        cells.append([*map(_text, name), *(_text(errors.get(k)) for k in NEWTON_ITERATIONS)])
    columns = ("initial trajectory", "T", *(f"iteration {k}" for k in NEWTON_ITERATIONS))
    return "\n\n".join([*parts, f"### Newton's method\n\n{markdown_table(columns, cells)}"])


def plot_convergence(rows: Sequence[Row]) -> Figure:
    """Errors by depth: a line of panels for each initial trajectory, a column for each T; a panel for each PCM."""
    untrained = [row for row in rows if row["sampler"].startswith(UNTRAINED)]
    without_pcm = [row for row in rows if row["stiffness"] is None and row not in untrained]
    pcms = _group(
        [row for row in rows if row["stiffness"] is not None],
        "sampler",
        "steps",
        "formulation",
        "initialisation",
    )
    lines = _group(without_pcm, "initialisation")
    all_steps = sorted({row["steps"] for row in without_pcm})
    columns = max(len(all_steps), 1)
    height = len(lines) + -(-len(pcms) // columns)
    figure = Figure(figsize=(4 * columns + 2.5, 2.8 * height), layout="constrained")
    panels = figure.subplots(height, columns, sharey=True, squeeze=False)
    for line, ((initialisation,), of_line) in zip(panels, lines.items(), strict=False):
        for axes, steps in zip(line, all_steps, strict=True):
            _plot_formulations(axes, [row for row in of_line if row["steps"] == steps])
            axes.set_title(f"T = {steps}, initial trajectory {initialisation}", fontsize=9)
        line[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    rest = list(panels[len(lines) :].flat)
    for axes, (name, curves) in zip(rest, pcms.items(), strict=False):
        sampler, *settings = name
        twin = UNTRAINED + sampler.removeprefix("pcm").removeprefix("_lora")
        _plot_pcm(axes, curves, [row for row in untrained if row["sampler"] == twin])
        axes.set_title(f"{sampler}, T = {settings[0]}, {settings[1]}, {settings[2]}", fontsize=9)
        axes.legend(fontsize=8)
    for axes in rest[len(pcms) :]:
        axes.remove()
    return figure


def _plot_formulations(axes: Axes, rows: Sequence[Row]) -> None:
    for (sampler, formulation), curve in _group(_but_newton(rows), "sampler", "formulation").items():
        if sampler == "picard":
            style = {"linestyle": "-", "label": formulation}
        elif sampler == "parasolver":
            style = {"linestyle": "-.", "label": "parasolver"}
        else:
            style = {"linestyle": "--", "label": f"{formulation}, memory"}
        _draw(axes, curve, color=COLORS[formulation], **style)
    newton = _newton(rows)
    # As if an iteration were of depth 1, like all others.
    newton = [{**row, "depth": newton[0]["depth"] + row["iterations"]} for row in newton]
    _draw(axes, newton, color=COLORS["newton"], linestyle=":", label="newton, by iteration")
    # ParaSolver's iterations are deeper than the others', which it would push together.
    axes.set_xlim(0, max(row["depth"] for row in rows if row["sampler"] == "picard") + 0.5)


def _plot_pcm(axes: Axes, rows: Sequence[Row], without_pcm: Sequence[Row]) -> None:
    """A curve for each stiffness, one for all that make no difference; and the same sampler without a PCM."""
    _draw(axes, without_pcm, color="black", linestyle=":", label="without it")
    different: dict[tuple[float, ...], list[list[Row]]] = {}
    for curve in _group(rows, "stiffness").values():
        different.setdefault(tuple(row["error_p95"] for row in curve), []).append(curve)
    for index, same in enumerate(different.values()):
        color = colormaps["viridis"](index / max(len(different) - 1, 1) * 0.9)
        label = "s = " + ", ".join(f"{curve[0]['stiffness']:g}" for curve in same)
        _draw(axes, same[0], color=color, label=label)


def _draw(axes: Axes, curve: Sequence[Row], **style: Any) -> None:
    axes.plot([row["depth"] for row in curve], [row["error_p95"] for row in curve], **style)
    axes.set(xlabel="depth", ylabel="95th percentile", yscale="log", ylim=(1e-6, 5))
    axes.grid(alpha=0.3)


def _group(rows: Sequence[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    return groups


def _newton(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["sampler"] == "newton"]


def _but_newton(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["sampler"] != "newton"]


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.2g}"
