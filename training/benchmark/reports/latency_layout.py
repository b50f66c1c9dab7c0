"""The report `latency` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.benchmark.config import LatencyReportConfig
from training.benchmark.report import markdown_table

MARKERS = "osD^vP*X"
WORLD_COLUMNS = (
    ("skipped", "skipped_points", ".1f"),
    ("missed", "missed", ".0%"),
    ("hold", "hold_share", ".0%"),
)
"""Title, column of the CSV and format."""
LIMITS = ("reward_low", "reward_high")


def describe_latency(options: LatencyReportConfig) -> str:
    """What was measured, and what the columns mean."""
    seeds = f"{len(options.noise_seeds)} noise seed{'s' if len(options.noise_seeds) > 1 else ''}"
    return (
        "The simulator goes on while the policy computes: the pusher follows the rest of the chunk before, and the "
        "points of a chunk that are over when it arrives are skipped. The next inference starts from the last "
        "observation that leaves enough time, one at a time, as in the policy node. A latency counts up to the end of "
        "the control step that it ends in. Where a chunk ends before the next one is there, the pusher holds its last "
        "target, or goes on with what was predicted beyond the chunk (the horizon), which makes a difference from half "
        "a chunk's duration on.\n\n"
        f"Reward: mean over {options.episodes} episodes (initial states from seed {options.first_seed}) × {seeds} of "
        f"the largest reward in {options.max_steps} control steps of 100 ms, with its 95 % interval over episodes. "
        "Fixed: every chunk takes as long. Measured: each chunk takes the wall time of its own call of the runtime at "
        f"batch size 1 on this machine, and inferences start {options.margin_ms:g} ms earlier than needed. Skipped: "
        "points per chunk. Missed: chunks that came after the end of the one before. Hold: control steps without a "
        "target to move to."
    )


def sampler_of(row: Mapping[str, Any]) -> str:
    depth = "" if row["depth"] == row["steps"] else f", depth {row['depth']}"
    return f"{row['method']}, T = {row['steps']}{depth}"


def label_of(row: Mapping[str, Any]) -> str:
    return sampler_of(row) + (", goes on with the horizon" if row["after_chunk"] == "horizon" else "")


def format_latency(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rewards at fixed latencies, and one of the latencies measured here."""
    fixed = [row for row in rows if row["latency"] == "fixed"]
    measured = [row for row in rows if row["latency"] == "measured"]
    parts = []
    if fixed:
        latencies = sorted({row["ms_p50"] for row in fixed})
        labels = list(dict.fromkeys(label_of(row) for row in fixed))
        by_place = {(label_of(row), row["ms_p50"]): row for row in fixed}
        cells = [[label, *(_reward_at(by_place, label, ms) for ms in latencies)] for label in labels]
        # What becomes of the chunks depends on the latency alone, up to when the episodes end.
        cells += [
            [f"{title}, {labels[0]}", *(_number(by_place[labels[0], ms][name], form) for ms in latencies)]
            for title, name, form in WORLD_COLUMNS
        ]
        columns = ["sampler", *(f"{ms:g} ms" for ms in latencies)]
        parts.append(f"### Reward at fixed latencies\n\n{markdown_table(columns, cells)}")
    if measured:
        columns = [
            "sampler",
            "engine",
            "ms p50",
            "ms p99",
            "reward",
            *(title for title, _, _ in WORLD_COLUMNS),
        ]
        cells = [
            [
                label_of(row),
                row["engine"],
                f"{row['ms_p50']:.1f}",
                f"{row['ms_p99']:.1f}",
                _reward(row),
                *(_number(row[name], form) for _, name, form in WORLD_COLUMNS),
            ]
            for row in measured
        ]
        parts.append(f"### Measured latencies\n\n{markdown_table(columns, cells, text_columns=2)}")
    return "\n\n".join(parts)


def _reward_at(by_place: Mapping[tuple[str, float], Mapping[str, Any]], label: str, ms: float) -> str:
    return f"{by_place[label, ms]['reward']:.3f}" if (label, ms) in by_place else ""


def _reward(row: Mapping[str, Any]) -> str:
    if row["reward_low"] is None:
        return f"{row['reward']:.3f}"
    return f"{row['reward']:.3f} ({row['reward_low']:.3f} … {min(1.0, row['reward_high']):.3f})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def plot_latency(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Reward over latency: a line for each sampler at fixed latencies, and what it is on this machine."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    fixed_axes, measured_axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for number, sampler in enumerate(dict.fromkeys(sampler_of(row) for row in rows)):
        own = [row for row in rows if sampler_of(row) == sampler]
        style = {"marker": MARKERS[number % len(MARKERS)], "color": f"C{number % 10}", "markersize": 5}
        for after_chunk, line in (("hold", "-"), ("horizon", "--")):
            curve = [r for r in own if r["latency"] == "fixed" and r["after_chunk"] == after_chunk]
            points = sorted((row["ms_p50"], row["reward"]) for row in curve)
            if points:
                label = sampler if after_chunk == "hold" else None
                fixed_axes.plot(*zip(*points, strict=True), linestyle=line, linewidth=1, label=label, **style)
        for row in own:
            if row["latency"] == "measured":
                limits = [row["reward"] if row[name] is None else row[name] for name in LIMITS]
                bars = [[row["reward"] - limits[0]], [limits[1] - row["reward"]]]
                measured_axes.errorbar(row["ms_p50"], row["reward"], bars, capsize=3, label=sampler, **style)
    fixed_axes.set(
        title="at fixed latencies (dashed: goes on with the horizon)",
        xlabel="latency of a chunk in ms",
        ylabel="mean maximum reward",
        ylim=(0, 1),
    )
    measured_axes.set(title="measured here, batch size 1", xlabel="latency of a chunk in ms, median")
    measured_axes.set_xlim(
        0, 1.1 * max((row["ms_p50"] for row in rows if row["latency"] == "measured"), default=1)
    )
    for axes in (fixed_axes, measured_axes):
        axes.grid(alpha=0.3)
    shown = fixed_axes if fixed_axes.has_data() else measured_axes
    figure.legend(*shown.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure
