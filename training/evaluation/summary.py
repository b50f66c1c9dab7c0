"""The summary of episodes: as JSON, and as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.atomic_write import atomic_write
from training.evaluation.episode import Episode, hold_share
from training.evaluation.interval import mean_interval
from training.evaluation.rollout import Rollout
from training.evaluation.smoothness import smoothness

PAPER_STEPS = 200
"""Control steps of an episode in the PCM paper; Diffusion Policy's limit is 300."""

CHUNK_TIMES = {"inference_ms": "inference time", "latency_ms": "latency"}
"""Names of the times that `Episode.chunk_seconds` can hold: those of policy calls, or from the observations on."""


JUMP = "chunk_jump"
"""Begins the key of the jumps between chunks; their unit follows."""


def summarize(rollout: Rollout, *, chunk_time: str = "inference_ms") -> dict[str, Any]:
    """The summary of a rollout, ready for JSON.

    Args:
        rollout: rollout of at least one episode.
        chunk_time: the kind of its times, one of `CHUNK_TIMES`.
    """
    shorter = None
    if any(episode.steps > PAPER_STEPS for episode in rollout.episodes):
        shorter = _rewards([episode.within(PAPER_STEPS) for episode in rollout.episodes])
    return {
        **_rewards(rollout.episodes),
        f"within_{PAPER_STEPS}_steps": shorter,
        chunk_time: _percentiles([1000 * seconds for seconds in rollout.call_seconds]),
        "policy_calls": len(rollout.call_seconds),
        "network_evaluations": rollout.network_evaluations,
        "depth": _percentiles(rollout.depths),
        "cut_share": _mean(rollout.cuts),
        **_world(rollout),
        "episodes": [
            {
                "seed": episode.seed,
                "max_reward": episode.max_reward,
                "success": episode.success,
                "steps": episode.steps,
                "chunk_ms": _mean([1000 * seconds for seconds in episode.chunk_seconds]),
            }
            for episode in rollout.episodes
        ],
    }


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def format_summary(summary: dict[str, Any]) -> str:
    """A table for the terminal, one row per episode."""
    lines = [f"{'seed':>8}  {'max reward':>10}  {'success':>7}  {'steps':>5}  {'ms/chunk':>8}"]
    lines += [
        f"{row['seed']:>8}  {row['max_reward']:>10.3f}  {'yes' if row['success'] else 'no':>7}  "
        f"{row['steps']:>5}  {'-' if row['chunk_ms'] is None else format(row['chunk_ms'], '.1f'):>8}"
        for row in summary["episodes"]
    ]
    lines.append(_format_rewards(summary))
    if shorter := summary[f"within_{PAPER_STEPS}_steps"]:
        lines.append(f"within {PAPER_STEPS} steps, the PCM paper's limit: {_format_rewards(shorter)}")
    for key, name in CHUNK_TIMES.items():
        if times := summary.get(key):
            lines.append(f"{name} {times['p50']:.1f} ms median, {times['p99']:.1f} ms p99")
    if depth := summary["depth"]:
        lines.append(f"depth {depth['mean']:g}: sequential network evaluations of a chunk")
    unit = next((key.removeprefix(JUMP) for key in summary if key.startswith(JUMP)), None)
    if unit is not None and (jump := summary[f"{JUMP}{unit}"]):
        speed, jerk, said = summary[f"top_speed{unit}_per_s"], summary[f"jerk{unit}"], unit.replace("_", " ")
        lines.append(
            f"from chunk to chunk {jump['mean']:.3g}{said} apart on average, {jump['p95']:.3g}{said} p95; "
            f"top speed {speed['p50']:.3g}{said}/s, jerk {jerk['p50']:.3g}{said} (medians of the episodes)"
        )
    if world := summary.get("world"):
        lines.append(_format_world(world))
    return "\n".join(lines)


def format_interval(interval: Sequence[float] | None) -> str:
    """Text of a 95 % interval, to follow a mean reward; empty without limits."""
    return "" if interval is None else f" (95 % interval {interval[0]:.3f} … {interval[1]:.3f})"


def _rewards(episodes: Sequence[Episode]) -> dict[str, Any]:
    mean, low, high = mean_interval([episode.max_reward for episode in episodes])
    return {
        "mean_max_reward": mean,
        "mean_max_reward_ci95": None if low is None else [low, high],
        "success_rate": float(np.mean([episode.success for episode in episodes])),
    }


def _world(rollout: Rollout) -> dict[str, Any]:
    """Delays, misses and holds, as far as they were recorded; episodes on ROS have none."""
    episodes, task = rollout.episodes, rollout.task
    held = hold_share(episodes)
    if held is None or task is None:
        return {}
    units = set(task.action.units)
    unit = (
        f"_{units.pop()}" if len(units) == 1 else ""
    )  # numbers of several units have a distance without one
    chunks = [chunk for episode in episodes for chunk in episode.chunks]
    return {
        **smoothness_summary(
            [chunk.jump for chunk in chunks if chunk.jump is not None],
            [episode.commands for episode in episodes if episode.commands is not None],
            rate=task.rate,
            unit=unit,
        ),
        "world": {
            "inference_ms": _percentiles([chunk.inference_ms for chunk in chunks]),
            "start_delay_ms": _percentiles([chunk.start_delay_ms for chunk in chunks]),
            "skipped_points_per_chunk": _mean([chunk.skipped_points for chunk in chunks]),
            "deadline_misses": sum(chunk.missed for chunk in chunks),
            "hold_share": held,
        },
    }


def smoothness_summary(
    jumps: Sequence[float], commands: Sequence[NDArray[np.float64]], *, rate: float, unit: str
) -> dict[str, Any]:
    """Jumps at seams, top speed and jerk, with the unit in their names.

    Args:
        jumps: of each chunk.
        commands: of each episode, (S, A).
        rate: control steps a second.
        unit: of the commands, with an underscore before it; empty for several.
    """
    found = [smoothness(each) for each in commands]
    return {
        f"{JUMP}{unit}": _percentiles(jumps),
        f"top_speed{unit}_per_s": _percentiles([rate * each.top_speed for each in found]),
        f"jerk{unit}": _percentiles([each.jerk for each in found]),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values))} | {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _format_rewards(rewards: dict[str, Any]) -> str:
    interval = format_interval(rewards["mean_max_reward_ci95"])
    return f"mean maximum reward {rewards['mean_max_reward']:.3f}{interval}, success rate {rewards['success_rate']:.2f}"


def _format_world(world: dict[str, Any]) -> str:
    if world["inference_ms"] is None:
        return "the world went on, and no chunk arrived"
    if world["inference_ms"]["mean"] == 0:
        return "the world waited for each chunk"
    return (
        f"the world went on for {world['inference_ms']['mean']:.0f} ms per chunk: "
        f"{world['skipped_points_per_chunk']:.1f} points skipped, on hold in {world['hold_share']:.0%} of the steps"
    )
