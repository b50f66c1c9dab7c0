"""What a soak test has seen, as numbers and as Markdown. Knows no ROS."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy.sampling import sampler_from_options, sampler_options

SETTLED_SHARE = 0.25
"""Share of a process's samples, the first ones, in which memory may still grow: caches fill, libraries load."""


@dataclass(frozen=True)
class Sample:
    """The processes at one time: seconds since the start, resident MiB by executable, and the machine's load."""

    seconds: float
    memory: dict[str, float]
    load: float
    """Mean number of processes that wanted to run in the minute before. Above the cores the machine is crowded."""


def memory_report(samples: Sequence[Sample], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Memory of each process in MiB, and its growth in MiB per hour after it had settled: the slope of a line.

    Raises:
        RuntimeError: for a process that was not seen often enough.
    """
    report = {}
    for name in names:
        seen = [(sample.seconds / 3600, sample.memory[name]) for sample in samples if name in sample.memory]
        settled = seen[round(SETTLED_SHARE * len(seen)) :]
        if len(settled) < 2:
            raise RuntimeError(f"{name} was seen {len(seen)} times, too short a soak")
        hours, memory = np.transpose(settled)
        report[name] = {
            "start_mib": seen[0][1],
            "settled_mib": settled[0][1],
            "end_mib": seen[-1][1],
            "growth_mib_per_hour": float(np.polyfit(hours, memory, 1)[0]),
        }
    return report


def load_report(samples: Sequence[Sample]) -> dict[str, float]:
    """Median and largest load of the machine: late chunks on a crowded machine are not the nodes' own."""
    loads = [sample.load for sample in samples]
    return {"median": float(np.median(loads)), "max": max(loads)}


def logged_faults(log: str) -> dict[str, int]:
    """Tracebacks, and lines of each severity from WARN on, in the log of the launch."""
    counts = {
        severity: len(re.findall(rf"\[{severity}\] \[\d", log)) for severity in ("WARN", "ERROR", "FATAL")
    }
    return counts | {"Traceback": log.count("Traceback (most recent call last)")}


def duration_report(seconds: Collection[float]) -> dict[str, float] | None:
    """Percentiles of durations, in ms; None if there are none."""
    if not seconds:
        return None
    milliseconds = 1e3 * np.array(list(seconds))
    values = {f"p{percent}_ms": float(np.percentile(milliseconds, percent)) for percent in (50, 99)}
    return {"count": len(seconds), **values, "max_ms": float(milliseconds.max())}


def sampler_text(diagnostics: Mapping[str, str]) -> str:
    """The sampler of a policy node with nothing left to choose, from its diagnostics."""
    defaults: dict[str, Any] = {name: value for name, _, value in sampler_options()}
    values = {name: type(default)(diagnostics[name]) for name, default in defaults.items()}
    return str(sampler_from_options(values))


def format_report(report: dict[str, Any], interval: str) -> str:
    """The report as Markdown; the text of the interval follows the mean reward."""
    seen, where = report["diagnostics"], report["machine"]
    lines = [
        f"# {report['minutes']:.3g} minutes in real time: {sampler_text(report['diagnostics'])}",
        "",
        f"`{report['command']}` on {where['device']}, {where['cores']} cores, ROS 2 {report['ros']} with "
        f"{report['rmw']}, code {report['code']}.",
        "",
        f"{report['episodes']} episodes, {len(report['failures'])} failed, mean maximum reward "
        f"{report['mean_max_reward']:.3f}{interval}, success rate {report['success_rate']:.2f}.",
        "",
        f"{seen['chunks']} chunks, {seen['deadline_misses']} late, {seen['deadline_cuts']} cut by the sampler's "
        f"deadline; {seen['rejected_observations']} observations rejected, {seen['clamped_points']} points "
        "clamped.",
        "",
        "| of what was commanded | mean | p50 | p95 | p99 |",
        "|---|---:|---:|---:|---:|",
        *_smoothness_rows(report["smoothness"]),
        "",
        f"Load of the machine: {report['load']['median']:.1f} in the median, {report['load']['max']:.1f} at most. "
        "In the log: "
        + ", ".join(f"{count} {severity}" for severity, count in report["faults"].items())
        + ".",
        "",
        "| of the last 1000 chunks | p50, ms | p95, ms | p99, ms |",
        "|---|---:|---:|---:|",
    ]
    for name, text in (
        ("latency", "latency, from observation to chunk"),
        ("inference", "inference time"),
        ("overhead", "latency beyond the inference time"),
    ):
        values = " | ".join(seen[f"{name}_p{percent}_ms"] for percent in (50, 95, 99))
        lines.append(f"| {text} | {values} |")
    lines += [
        "",
        "| parameter and lifecycle services of the policy node | answers | p50, ms | p99, ms | max, ms |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in ("all", "while a chunk was computed"):
        answers = report["services"][name]
        if answers is not None:
            lines.append(
                f"| {name} | {answers['count']} | {answers['p50_ms']:.1f} | {answers['p99_ms']:.1f} | "
                f"{answers['max_ms']:.1f} |"
            )
    lines += [
        "",
        f"{report['services']['unanswered']} calls unanswered.",
        "",
        f"| process | MiB at the start | MiB after {SETTLED_SHARE:.0%} of the time | MiB at the end | "
        "growth from then on, MiB per hour |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {used['start_mib']:.1f} | {used['settled_mib']:.1f} | {used['end_mib']:.1f} | "
        f"{used['growth_mib_per_hour']:.2f} |"
        for name, used in report["memory"].items()
    ]
    return "\n".join(lines) + "\n"


def _smoothness_rows(found: Mapping[str, Mapping[str, float] | None]) -> list[str]:
    """Jumps, top speed and jerk; those of which nothing was heard are left out."""
    titles = {
        "chunk_jump_px": "jump from chunk to chunk, px",
        "top_speed_px_per_s": "top speed of an episode, px/s",
        "jerk_px": "jerk of an episode, root mean square of the third difference, px",
    }
    return [
        f"| {title} | {' | '.join(f'{values[name]:.1f}' for name in ('mean', 'p50', 'p95', 'p99'))} |"
        for key, title in titles.items()
        if (values := found[key]) is not None
    ]
