"""Evaluate a policy: on simulated episodes (rewards, inference times, pictures), or on demonstrated ones (errors)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from policy import DiffusionPolicy, SamplerConfig
from policy.checkpoint import file_sha256
from policy.pcm import load_pcm
from policy.runtime import CHUNK_ENGINES, ENGINE_CHOICES, PLAIN, Runtime, serve
from training.command import run_command
from training.distributed import choose_device
from training.evaluation.environment import EnvironmentConfig
from training.evaluation.episode_pictures import (
    plot_commands,
    plot_film_strip,
    plot_final_frames,
    plot_rewards,
    write_video,
)
from training.evaluation.latency import LatencyConfig
from training.evaluation.offline.report import write_judgement
from training.evaluation.offline.store import judge_store
from training.evaluation.rollout import run_episodes
from training.evaluation.summary import format_summary, summarize, write_summary
from training.output_dir import Outputs, check_output_dir, claim_output_dir, locked_output_dir
from training.provenance import code_version, command_line, machine


def _is_summary(path: Path) -> bool:
    try:
        summary = json.loads(path.read_text(encoding="utf-8")) if path.name == "summary.json" else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(summary, dict) and {"episodes", "config", "sampler", "checkpoint"} <= summary.keys()


JUDGED = "actions"  # its files are named by it
NAMES = (
    *("summary.json", "rewards.png", "commands.png", "final_frames.png", "episode.png", "episodes.mp4"),
    *(f"{JUDGED}.{ending}" for ending in ("csv", "png")),
)
MOST_NOISE_SEEDS = 1000
OF_DEMONSTRATIONS = ("task", "demonstrated_episodes", "noise_seeds")
OF_ROLLOUTS = (
    *("episodes", "first_seed", "max_steps", "batch_size", "recorded_episodes", "engine"),
    *("latency", "environment"),
)
SECTIONS: dict[str, Callable[[], object]] = {"latency": LatencyConfig, "environment": EnvironmentConfig}
MOST_EPISODES = 100_000  # and control steps of one: what is beyond is a slip, and would never end
OUTPUTS = Outputs("pcm-evaluate", NAMES, _is_summary)


@dataclass(frozen=True)
class EvaluateConfig:
    """See `training/conf/evaluate.yaml`."""

    checkpoint: str = MISSING
    output_dir: str = MISSING
    pcm: str | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    episodes: int = 50
    first_seed: int = 100000
    max_steps: int = 200
    noise_seed: int = 0
    batch_size: int | None = None
    recorded_episodes: int = 10
    engine: str = "auto"
    demonstrations: str | None = None
    task: str | None = None
    demonstrated_episodes: list[int] | None = None
    noise_seeds: int = 5
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > MOST_EPISODES:
                raise ValueError(f"{name} must be at most {MOST_EPISODES}, got {getattr(self, name)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(
                f"batch_size must be at least 1, or null for all episodes, got {self.batch_size}"
            )
        if self.engine not in ENGINE_CHOICES:
            raise ValueError(f"engine must be one of {', '.join(ENGINE_CHOICES)}, got {self.engine!r}")
        if self.engine in CHUNK_ENGINES and not self.one_at_a_time:
            raise ValueError(f"engine={self.engine} needs batch_size=1, got {self.batch_size or 'null'}")
        if self.sampler.uses_pcm and self.pcm is None:
            raise ValueError("sampler.method=pcm needs pcm=….safetensors")
        if not 0 <= self.first_seed <= 2**32 - self.episodes:
            raise ValueError(f"first_seed must be in 0 … {2**32 - self.episodes}, got {self.first_seed}")
        if not 0 <= self.noise_seed < 2**31:
            raise ValueError(f"noise_seed must be in 0 … {2**31 - 1}, got {self.noise_seed}")
        if self.recorded_episodes < 0:
            raise ValueError(f"recorded_episodes must not be negative, got {self.recorded_episodes}")
        if not 1 <= self.noise_seeds <= MOST_NOISE_SEEDS:
            raise ValueError(f"noise_seeds must be in 1 … {MOST_NOISE_SEEDS}, got {self.noise_seeds}")
        self._check_what_is_run()

    def _check_what_is_run(self) -> None:
        """Refuse keys of simulated episodes beside demonstrations, and the other way round."""
        in_simulator = self.demonstrations is None
        reason = "is of simulated episodes, of which there are none with demonstrations=…"
        if in_simulator:
            reason = "needs demonstrations=….zarr"
        for name in OF_DEMONSTRATIONS if in_simulator else OF_ROLLOUTS:
            default = SECTIONS[name]() if name in SECTIONS else getattr(EvaluateConfig, name)
            if getattr(self, name) != default:
                raise ValueError(f"{name} {reason}")

    @property
    def one_at_a_time(self) -> bool:
        return self.batch_size == 1 or self.latency.mode == "measured"


def evaluate(config: EvaluateConfig) -> str:
    """Run the episodes, or judge the demonstrated ones, and write `summary.json`, tables, plots and a video.

    Returns:
        The table for the terminal.

    Raises:
        ValueError: if the output directory holds other things.
        RuntimeError: if another process has it.
    """
    output_dir = Path(config.output_dir)
    check_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite)  # now, not after the episodes
    device = choose_device(config.device)
    policy = DiffusionPolicy.load(config.checkpoint, device, config.sampler)
    if config.pcm is not None:
        policy = policy.with_pcm(load_pcm(config.pcm, policy.network))
    # Hashed now, because a training may replace the files while the episodes run.
    origin = {
        "config": asdict(config),
        "sampler": asdict(policy.resolved_sampler),
        "checkpoint": {"sha256": file_sha256(config.checkpoint), "provenance": dict(policy.provenance)},
        "pcm": None
        if policy.pcm is None or config.pcm is None
        else {"sha256": file_sha256(config.pcm), "provenance": dict(policy.pcm.provenance)},
        "code": code_version(),
        "command": command_line(),
        "machine": machine(device),
    }
    if policy.pcm_mismatch:
        print(f"warning: {policy.pcm_mismatch}", file=sys.stderr)
    if config.demonstrations is None:
        # From the start, as episodes take long; demonstrations are judged before anything is made.
        with locked_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite):
            return _evaluate_in_simulator(policy, config, origin)
    return _evaluate_on_demonstrations(policy, config.demonstrations, config=config, origin=origin)


def _evaluate_on_demonstrations(
    policy: DiffusionPolicy, demonstrations: str, *, config: EvaluateConfig, origin: dict[str, Any]
) -> str:
    seeds = range(config.noise_seed, config.noise_seed + config.noise_seeds)
    judgement = judge_store(
        policy,
        demonstrations,
        task=config.task,
        episodes=config.demonstrated_episodes,
        noise_seeds=seeds,
    )
    output_dir = Path(config.output_dir)
    with locked_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite):
        claim_output_dir(output_dir, OUTPUTS)
        write_summary(output_dir / "summary.json", {**judgement.summary, **origin})
        return write_judgement(judgement, output_dir, JUDGED)


def _evaluate_in_simulator(policy: DiffusionPolicy, config: EvaluateConfig, origin: dict[str, Any]) -> str:
    served = serve(policy, batch_size=1 if config.one_at_a_time else None, engine=config.engine)
    rollout = run_episodes(
        served,
        range(config.first_seed, config.first_seed + config.episodes),
        config.max_steps,
        noise_seed=config.noise_seed,
        batch_size=config.batch_size,
        record=config.recorded_episodes,
        latency=config.latency,
        environment=config.environment,
    )
    summary = {
        **summarize(rollout),
        **origin,
        "engine": served.engine if isinstance(served, Runtime) else PLAIN,
    }
    output_dir = Path(config.output_dir)
    claim_output_dir(output_dir, OUTPUTS)
    write_summary(output_dir / "summary.json", summary)
    plot_rewards(
        rollout.episodes, output_dir / "rewards.png", str(policy.resolved_sampler), rate=policy.task.rate
    )
    plot_commands(rollout.episodes[0], output_dir / "commands.png", policy.task)
    if recorded := [episode for episode in rollout.episodes if episode.frames]:
        plot_final_frames(recorded, output_dir / "final_frames.png")
        plot_film_strip(recorded[0], output_dir / "episode.png", rate=policy.task.rate)
        write_video(recorded, output_dir / "episodes.mp4", rate=policy.task.rate)
    return format_summary(summary)


def _run(config: EvaluateConfig) -> None:
    print(evaluate(config))
    print(f"summary, tables and pictures: {config.output_dir}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("evaluate", EvaluateConfig, _run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
