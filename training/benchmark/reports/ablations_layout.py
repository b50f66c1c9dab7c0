"""The report `ablations` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.benchmark.config import AblationsConfig
from training.benchmark.report import markdown_table

LINESTYLES = (":", "-", "--", "-.")


def describe_ablations(options: AblationsConfig, conditions: int) -> str:
    """What the tables show."""
    text = (
        f"95th percentile over {conditions} held-out observations of the largest difference of a normalised action "
        "from the sequential answer with the same noise, solver and T, by depth: network evaluations one after the "
        "other, those for the initial trajectory included.\n\n"
        "Covariances Σ of preconditioned Picard iteration, which needs no training: of the policy's own samples given "
        "the observation, as in the checkpoint; its diagonal; s²·I; of the demonstrations' action sequences, whatever "
        "the observation; and the same of what a linear regression on the observation leaves."
    )
    if options.trajectories is not None:
        text += (
            " Trainings differ from the first one in what they are called, and have the same short budget: "
            f"`{' '.join(options.training)}`. They are sampled as they were trained, with stiffness s."
        )
    return text


def format_ablations(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of errors by depth for each ablation and T."""
    parts = []
    for (ablation, steps), panel in _panels(rows).items():
        depths = sorted({row["depth"] for row in panel})
        lines = []
        for names, errors in _curves(panel).items():
            cells = [f"{errors[depth]:.2g}" if depth in errors else "" for depth in depths]
            lines.append([*names, *cells])
        columns = [ablation, "sampled", *(f"depth {depth}" for depth in depths)]
        parts.append(
            f"### {ablation.capitalize()}, T = {steps}\n\n{markdown_table(columns, lines, text_columns=2)}"
        )
    return "\n\n".join(parts)


def plot_ablations(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Error over depth, a panel for each ablation and T, a colour for each variant."""
    panels = _panels(rows)
    longest = max(len(_curves(panel)) for panel in panels.values())  # legend
    heights = (4.0, 0.17 * longest + 0.2)
    figure = Figure(figsize=(4.2 * len(panels), sum(heights)), layout="constrained")
    all_axes, legends = figure.subplots(2, len(panels), sharey="row", squeeze=False, height_ratios=heights)
    for axes, legend, ((ablation, steps), panel) in zip(all_axes, legends, panels.items(), strict=True):
        variants = list(dict.fromkeys(row["variant"] for row in panel))
        ways = list(dict.fromkeys(_way(row) for row in panel))
        for (variant, way), errors in _curves(panel).items():
            axes.plot(
                list(errors),
                list(errors.values()),
                LINESTYLES[ways.index(way) % len(LINESTYLES)],
                marker=".",
                color=f"C{variants.index(variant)}",
                label=f"{variant}, {way}",
            )
        axes.set(title=f"{ablation}, T = {steps}", xlabel="depth", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        legend.set_axis_off()
        legend.legend(handles=axes.get_lines(), loc="upper center", fontsize=7, handlelength=4)
    all_axes[0].set_ylabel("95th percentile of the largest error")
    return figure


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    panels: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["ablation"], row["steps"])):
        panels.setdefault((row["ablation"], row["steps"]), []).append(row)
    return panels


def _curves(panel: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[int, float]]:
    """Depth → error, by variant and how it is sampled."""
    curves: dict[tuple[str, str], dict[int, float]] = {(row["variant"], _way(row)): {} for row in panel}
    for row in sorted(panel, key=lambda row: int(row["depth"])):
        curves[row["variant"], _way(row)][row["depth"]] = row["error_p95"]
    return curves


def _way(row: Mapping[str, Any]) -> str:
    initial = f"{row['initialisation']} start"
    return initial if row["stiffness"] is None else f"{initial}, s = {row['stiffness']:g}"
