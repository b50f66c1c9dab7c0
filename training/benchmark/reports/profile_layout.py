"""The report `profile` as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from training.benchmark.config import ProfileConfig
from training.benchmark.report import markdown_table
from training.benchmark.reports.profile_floor import Floor

COLUMNS = (
    "engine",
    "sampler",
    "T",
    "depth",
    "ms p50",
    "ms p99",
    "× DDIM",
    "in network",
    "evaluations",
    "× floor",
)


def describe_profile(options: ProfileConfig, floor: Floor, threads: int) -> str:
    """What was measured, and what the columns mean."""
    rewards = f"from `{options.rewards}`" if options.rewards else "not given"
    return (
        f"Wall time of one chunk at batch size 1 with {threads} thread{'s' if threads > 1 else ''}, from the "
        f"observation to the chunk on the CPU: median and 99th percentile of {options.calls} calls of each row, five "
        "at a time, all rows in turns. × DDIM: against the first row, DDIM through the plain sampler. Depth: network "
        "calls one after the other, each of as many samples as there are states. In network: share of the time. "
        "Error: 95th percentile over held-out observations of the largest difference of a normalised action from the "
        f"plain sequential sampler with the same noise, solver and T. Reward within 200 control steps: {rewards}.\n\n"
        f"Floor: an evaluation takes {floor.flops / 1e6:.3g} MFLOP, and each call reads "
        f"{floor.weight_bytes / 1e6:.3g} MB of weights, or takes the longer of both; this machine computes "
        f"{floor.flops_per_second / 1e9:.3g} GFLOP/s and reads as much memory at "
        f"{floor.bytes_per_second / 1e9:.3g} GB/s."
    )


def format_profile(rows: Sequence[Mapping[str, Any]], details: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of all rows, with details that the CSV has no columns for."""
    cells = [
        [
            row["engine"],
            detail["method"],
            str(row["steps"]),
            str(detail["depth"]),
            f"{row['ms_p50']:.2f}",
            f"{row['ms_p99']:.2f}",
            f"{row['speedup_vs_ddim50']:.1f}",
            f"{detail['network_share']:.0%}",
            f"{row['network_evaluations']:.3g}",
            f"{row['times_floor']:.1f}",
            "" if row["error_p95"] is None else f"{row['error_p95']:.2g}",
            "" if row["reward"] is None else f"{row['reward']:.3f}",
        ]
        for row, detail in zip(rows, details, strict=True)
    ]
    return markdown_table((*COLUMNS, "error p95", "reward"), cells, text_columns=2)


def plot_profile(rows: Sequence[Mapping[str, Any]], details: Sequence[Mapping[str, Any]]) -> Figure:
    """Milliseconds per chunk of each row, with its floor."""
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    colors = [f"C{engines.index(row['engine'])}" for row in rows]
    axes.barh(places, [row["ms_p50"] for row in rows], color=colors)
    axes.plot([detail["floor_ms"] for detail in details], places, "k|", markersize=8, label="floor")
    labels = [
        f"{row['engine']}: {detail['method']}, T = {row['steps']}, depth {detail['depth']}"
        for row, detail in zip(rows, details, strict=True)
    ]
    axes.set_yticks(places, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms per chunk, median")
    axes.legend()
    axes.grid(axis="x", alpha=0.3)
    return figure
