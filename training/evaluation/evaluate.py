"""Evaluate a policy on PushT episodes: rewards, latencies, pictures."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from policy import DiffusionPolicy, SamplerConfig
from policy.atomic_write import atomic_write
from policy.checkpoint import file_sha256
from policy.pcm import load_pcm
from policy.runtime import ENGINE_CHOICES, ENGINES, PLAIN, Runtime, serve
from training.command import run_command
from training.distributed import choose_device
from training.evaluation.episode import Episode, hold_share
from training.evaluation.episode_pictures import plot_film_strip, plot_final_frames, plot_rewards, write_video
from training.evaluation.latency import LatencyConfig
from training.evaluation.rollout import Rollout, run_episodes
from training.provenance import code_version, command_line, machine


@dataclass(frozen=True)
class EvaluateConfig:
    """See `training/conf/evaluate.yaml`."""

    checkpoint: str = MISSING
    output_dir: str = MISSING
    pcm: str | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    episodes: int = 50
    first_seed: int = 100000
    max_steps: int = 200
    noise_seed: int = 0
    batch_size: int | None = None
    recorded_episodes: int = 10
    engine: str = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, or null for all episodes, got {self.batch_size}"
            )
        if self.engine not in ENGINE_CHOICES:
            raise ValueError(f"engine must be one of {', '.join(ENGINE_CHOICES)}, got {self.engine!r}")
        if self.engine in ENGINES and not self.one_at_a_time:
            raise ValueError(f"engine={self.engine} needs batch_size=1, got {self.batch_size or 'null'}")
        if self.sampler.uses_pcm and self.pcm is None:
            raise ValueError("sampler.method=pcm needs pcm=….safetensors")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(f"first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}")
        if not 0 <= self.noise_seed < 2**31:
            raise ValueError(f"noise_seed must be in 0 … {2**31 - 1}, got {self.noise_seed}")
        if self.recorded_episodes < 0:
            raise ValueError(f"recorded_episodes must not be negative, got {self.recorded_episodes}")

    @property
    def one_at_a_time(self) -> bool:
        return self.batch_size == 1 or self.latency.mode == "measured"


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the episodes and write `summary.json`, plots and a video into the output directory.

    Returns:
        The summary.
    """
    device = choose_device(config.device)
    policy = DiffusionPolicy.load(config.checkpoint, device, config.sampler)
    if config.pcm is not None:
        policy = policy.with_pcm(load_pcm(config.pcm, policy.network))
    # Now: a training may replace the files while the episodes run.
    checkpoint_sha256 = file_sha256(config.checkpoint)
    pcm_sha256 = None if config.pcm is None else file_sha256(config.pcm)
    if policy.pcm_mismatch:
        print(f"warning: {policy.pcm_mismatch}", file=sys.stderr)
    served = serve(policy, engine=config.engine if config.one_at_a_time else PLAIN)
    rollout = run_episodes(
        served,
        range(config.first_seed, config.first_seed + config.episodes),
        config.max_steps,
        config.noise_seed,
        config.batch_size,
        config.recorded_episodes,
        latency=config.latency,
    )
    summary = {
        **summarize(rollout),
        "config": asdict(config),
        "sampler": asdict(policy.resolved_sampler),
        "engine": served.engine if isinstance(served, Runtime) else PLAIN,
        "checkpoint": {"sha256": checkpoint_sha256, "provenance": dict(policy.provenance)},
        "pcm": None
        if policy.pcm is None
        else {"sha256": pcm_sha256, "provenance": dict(policy.pcm.provenance)},
        "code": code_version(),
        "command": command_line(),
        "machine": machine(device),
    }
    output_dir = Path(config.output_dir)
    write_summary(output_dir / "summary.json", summary)
    plot_rewards(rollout.episodes, output_dir / "rewards.png", str(policy.resolved_sampler))
    if recorded := [episode for episode in rollout.episodes if episode.frames]:
        plot_final_frames(recorded, output_dir / "final_frames.png")
        plot_film_strip(recorded[0], output_dir / "episode.png")
        write_video(recorded, output_dir / "episodes.mp4")
    return summary


def summarize(rollout: Rollout) -> dict[str, Any]:
    """The numbers of a rollout, ready for JSON."""
    rewards = np.array([episode.max_reward for episode in rollout.episodes])
    mean = float(rewards.mean())
    # Normal approximation of the mean; one episode says nothing about the spread.
    half_width = 1.96 * float(rewards.std(ddof=1)) / math.sqrt(len(rewards)) if len(rewards) > 1 else None
    return {
        "mean_max_reward": mean,
        "mean_max_reward_ci95": None if half_width is None else [mean - half_width, mean + half_width],
        "success_rate": float(np.mean([episode.success for episode in rollout.episodes])),
        "chunk_latency_ms": _percentiles([1000 * seconds for seconds in rollout.call_seconds]),
        "policy_calls": len(rollout.call_seconds),
        "network_evaluations": rollout.network_evaluations,
        "depth": _percentiles(rollout.sequential_evaluations),
        "cut_share": _mean(rollout.cuts),
        **_world_summary(rollout.episodes),
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


def _world_summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """How the chunks met the world, if that was seen: nothing of it is known of episodes on ROS."""
    held = hold_share(episodes)
    if held is None:
        return {}
    chunks = [chunk for episode in episodes for chunk in episode.chunks]
    return {
        "chunk_jump_px": _percentiles([chunk.jump for chunk in chunks if chunk.jump is not None]),
        "world": {
            "latency_ms": _percentiles([chunk.latency_ms for chunk in chunks]),
            "start_delay_ms": _percentiles([chunk.start_delay_ms for chunk in chunks]),
            "skipped_points_per_chunk": _mean([chunk.skipped_points for chunk in chunks]),
            "deadline_misses": sum(chunk.missed for chunk in chunks),
            "hold_share": held,
        },
    }


def _percentiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    mean = {"mean": float(np.mean(values))}
    return mean | {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


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
    spread = format_interval(summary["mean_max_reward_ci95"])
    lines.append(
        f"mean maximum reward {summary['mean_max_reward']:.3f}{spread}, success rate {summary['success_rate']:.2f}"
    )
    if latency := summary["chunk_latency_ms"]:
        lines.append(f"chunk latency {latency['p50']:.1f} ms median, {latency['p99']:.1f} ms p99")
    if depth := summary["depth"]:
        lines.append(f"{depth['mean']:g} network evaluations one after the other per chunk")
    if world := summary.get("world"):
        lines.append(_format_world(world))
    return "\n".join(lines)


def format_interval(interval: Sequence[float] | None) -> str:
    """To follow a mean reward: the limits of its 95 % interval, nothing if there are none."""
    # The normal approximation does not know that no reward is above 1.
    return "" if interval is None else f" (95 % interval {interval[0]:.3f} … {min(1.0, interval[1]):.3f})"


def _format_world(world: dict[str, Any]) -> str:
    if world["latency_ms"] is None:
        return "the world went on, and no chunk arrived"
    if world["latency_ms"]["mean"] == 0:
        return "the world waited for each chunk"
    return (
        f"the world went on for {world['latency_ms']['mean']:.0f} ms per chunk: "
        f"{world['skipped_points_per_chunk']:.1f} points skipped, on hold in {world['hold_share']:.0%} of the steps"
    )


def _run(config: EvaluateConfig) -> None:
    print(format_summary(evaluate(config)))
    print(f"summary, plots and video: {config.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("evaluate", EvaluateConfig, _run, argv)


if __name__ == "__main__":
    sys.exit(main())
