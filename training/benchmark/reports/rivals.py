"""Samplers and policies of others beside ours, in the same episodes: reward by depth and by network evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pandas import DataFrame
from torch import cat

from policy import DiffusionPolicy, SamplerConfig
from policy.checkpoint import file_sha256
from policy.pcm import load_pcm
from policy.runtime import Policy, serve
from training.benchmark.config import BenchmarkConfig, RivalsConfig
from training.benchmark.measurements import (
    EPISODE_STEPS,
    reward_cells,
    rewards_of,
    time_and_reward_columns,
    time_cells,
    timing_task,
)
from training.benchmark.report import load_policy, open_cache, rollout_engine, write_report
from training.benchmark.reports.deadline import initial_observations
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import markdown_table, table
from training.command import load_config, named_as_written
from training.distributed import choose_device
from training.evaluation.evaluate import EvaluateConfig
from training.evaluation.rollout import run_episodes

TICKS = (1, 2, 3, 5, 8, 10, 20, 30, 50, 100)
MARKERS = "os^vDP*"  # as many as make, with ten colours, a pair that is not seen twice
ENDS = (0.01, 0.999)  # of the scale of rewards, on which 0 and 1 are infinitely far away
REWARDS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)


@dataclass(frozen=True)
class Rival:
    """A policy with its sampler, the files that decide it, and its name."""

    name: str
    policy: DiffusionPolicy
    files: dict[str, str]

    @property
    def sampler(self) -> SamplerConfig:
        return self.policy.resolved_sampler

    @property
    def family(self) -> str:
        """What a figure shows in one colour: the policy and the kind of sampler, whatever its steps and options."""
        sampler = self.sampler
        kind = sampler.method if sampler.is_parallel else sampler.solver
        words = [
            self.name,
            kind,
            *["warm start"] * sampler.starts_warm,
            *["partial"] * bool(sampler.partial.steps),
        ]
        return ", ".join(words)


def report(config: BenchmarkConfig) -> None:
    """Write the report `rivals`."""
    options = config.rivals
    base = load_policy(config)
    cache = open_cache(config, base)
    rivals = load_rivals(config, base)
    tasks = [[_task(config, rival, seed) for seed in options.noise_seeds] for rival in rivals]
    timings = _timing_tasks(options, base, rivals)
    cache.measure_all([*timings, *(task for group in tasks for task in group)], "rivals")
    measured = [[cache.read(task) for task in group] for group in tasks]
    times = [cache.read(task)["milliseconds"] for task in timings]
    rows = table(
        [
            make_row(
                rival,
                found,
                first=measured[0],
                milliseconds={
                    threads: taken[index] for threads, taken in zip(options.threads, times, strict=True)
                },
            )
            for index, (rival, found) in enumerate(zip(rivals, measured, strict=True))
        ]
    )
    write_report(
        config,
        rows,
        title="Rivals",
        introduction=describe_rivals(options, rivals[0]),
        tables=markdown_table(rows, _columns(options), text_columns=2),
        figures={"": plot_rivals(rows)},
        measured=[row for found in measured for row in found],
        files={rival.name: rival.files for rival in rivals if rival.files},
    )


def load_rivals(config: BenchmarkConfig, base: DiffusionPolicy) -> list[Rival]:
    """The samplers, the first of which the others are compared with, and the others.

    Raises:
        ValueError: for a sampler that there is not, or that needs a PCM where there is none.
        CheckpointError: for a file that is no policy, or no PCM of it.
    """
    found = []
    for key in ("samplers", "others"):
        for words in getattr(config.rivals, key):
            with named_as_written(f"rivals.{key} '{words}': sampler"):
                found.append(_load_rival(words, config, base))
    return found


def _load_rival(words: str, config: BenchmarkConfig, base: DiffusionPolicy) -> Rival:
    read = read_rival(words, checkpoint=config.checkpoint)
    policy, name, files = base, Path(read.checkpoint).stem, {}
    if read.checkpoint != config.checkpoint:
        policy = DiffusionPolicy.load(read.checkpoint, choose_device(config.device))
        name = f"{Path(read.checkpoint).parent.name}/{name}"
        files["policy"] = file_sha256(read.checkpoint)
    if read.pcm is not None:
        policy = policy.with_pcm(load_pcm(read.pcm, policy.network))
        name = f"{name} + {Path(read.pcm).stem}"
        files["pcm"] = file_sha256(read.pcm)
    return Rival(name, policy.with_sampler(read.sampler), files)


def read_rival(words: str, *, checkpoint: str) -> EvaluateConfig:
    """Arguments of `pcm-evaluate` in which ``sampler.`` is left out, such as ``solver=unipc steps=3``.

    Args:
        words: separated by spaces, `checkpoint=` and `pcm=` among them where they differ from the report's.
        checkpoint: of a rival that names none.
    """
    files = ("checkpoint=", "pcm=")
    overrides = [word if word.startswith(files) else f"sampler.{word}" for word in shlex.split(words)]
    return load_config("evaluate", EvaluateConfig, [f"checkpoint={checkpoint}", *overrides])


def measure_rival(policy: Policy, options: RivalsConfig, *, noise_seed: int) -> Row:
    """Rewards and cost of one rollout.

    Returns:
        `max_reward_<steps>` and `success_<steps>`, see `rewards_of`; `depth` and `network_evaluations` of a chunk, in
        the mean.
    """
    rollout = run_episodes(
        policy,
        range(options.first_seed, options.first_seed + options.episodes),
        max_steps=max(EPISODE_STEPS),
        noise_seed=noise_seed,
        show_progress=False,
    )
    chunks = sum(len(episode.chunk_seconds) for episode in rollout.episodes)
    assert rollout.network_evaluations is not None
    return {
        **rewards_of(rollout.episodes),
        "depth": float(np.mean(rollout.depths)),
        "network_evaluations": rollout.network_evaluations / chunks,
    }


def make_row(
    rival: Rival,
    measured: Sequence[Row],
    *,
    first: Sequence[Row],
    milliseconds: Mapping[int, Sequence[float]],
) -> dict[str, Any]:
    """A row of the CSV.

    Args:
        rival: sampler and policy.
        measured: rollouts with each noise seed.
        first: those of the first rival.
        milliseconds: of calls, by the number of threads.
    """
    return {
        "policy": rival.name,
        "family": rival.family,
        "sampler": str(rival.sampler),
        **{
            name: float(np.mean([each[name] for each in measured]))
            for name in ("depth", "network_evaluations")
        },
        **time_cells(milliseconds),
        **reward_cells(measured, against=None if measured is first else first),
    }


def _columns(options: RivalsConfig) -> dict[str, tuple[str, str]]:
    return {
        "policy": ("policy", ""),
        "sampler": ("sampler", ""),
        "depth": ("depth", ".3g"),
        "network_evaluations": ("evaluations", ".3g"),
        **time_and_reward_columns(options.threads),
    }


def _timing_tasks(options: RivalsConfig, base: DiffusionPolicy, rivals: Sequence[Rival]) -> list[Task]:
    if not options.threads:
        return []
    observations = cat(initial_observations(base))
    return [
        timing_task(
            [partial(serve, rival.policy, engine=options.engine, threads=threads) for rival in rivals],
            observations,
            identity={
                "rivals": [{**rival.files, "sampler": asdict(rival.sampler)} for rival in rivals],
                "engine": options.engine,
            },
            cost=sum(rival.sampler.partial.steps or rival.sampler.steps for rival in rivals),
            threads=threads,
            calls=options.calls,
        )
        for threads in options.threads
    ]


def _task(config: BenchmarkConfig, rival: Rival, noise_seed: int) -> Task:
    options = config.rivals
    sampler = rival.sampler
    chunks = options.episodes * max(EPISODE_STEPS) / rival.policy.config.action_steps

    def measure() -> Row:
        served = serve(rival.policy, batch_size=None, engine=config.engine)
        return measure_rival(served, options, noise_seed=noise_seed)

    return Task(
        label=f"{rival.name}, {sampler}, noise seed {noise_seed}",
        cost=chunks * (sampler.partial.steps or sampler.steps),
        identity={
            **rival.files,
            "sampler": asdict(sampler),
            "first_seed": options.first_seed,
            "episodes": options.episodes,
            "noise_seed": noise_seed,
            **rollout_engine(config, rival.policy),
        },
        measure=measure,
    )


def describe_rivals(options: RivalsConfig, first: Rival) -> str:
    """What was measured, and what the columns mean."""
    return (
        f"Reward: mean over {options.episodes} episodes (initial states from seed {options.first_seed}) × "
        f"{len(options.noise_seeds)} noise seeds of the largest reward in {EPISODE_STEPS[0]} and in "
        f"{EPISODE_STEPS[1]} control steps, with its 95 % interval over episodes. Gain: over {first.sampler} of "
        f"{first.name} in the same episodes. Success: share of the episodes whose task was done by then. Depth: "
        "network evaluations one after the other, evaluations: all of them, of a chunk in the mean over episodes, "
        "first chunks included. Milliseconds: median of "
        f"{options.calls} chunks with one before them, at batch size 1, engine {options.engine}."
    )


def plot_rivals(rows: DataFrame) -> Figure:
    """Reward by depth and by evaluations, a point for each rival, a colour for each family."""
    reward = f"reward_{EPISODE_STEPS[0]}"
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (column, label) in zip(
        figure.subplots(1, 2, sharey=True),
        (("depth", "depth"), ("network_evaluations", "evaluations")),
        strict=True,
    ):
        for index, (family, points) in enumerate(rows.groupby("family", sort=False)):
            axes.semilogx(
                points[column],
                points[reward].clip(*ENDS),
                MARKERS[index % len(MARKERS)],
                color=f"C{index % 10}",
                markersize=7,
                alpha=0.8,
                label=family,
            )
        shown = [tick for tick in TICKS if rows[column].min() * 0.9 <= tick <= rows[column].max() * 1.1]
        axes.set_xticks(shown, [f"{tick}" for tick in shown])
        axes.minorticks_off()
        axes.set(xlabel=f"{label} of a chunk", yscale="logit")
        axes.grid(alpha=0.3)
    rewards = [tick for tick in REWARDS if rows[reward].min() * 0.9 <= tick <= rows[reward].max() * 1.02]
    figure.axes[0].set_yticks(rewards, [f"{tick}" for tick in rewards])
    figure.axes[0].yaxis.set_minor_locator(NullLocator())
    figure.axes[0].set_ylabel(f"mean maximum reward, {EPISODE_STEPS[0]} steps")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure
