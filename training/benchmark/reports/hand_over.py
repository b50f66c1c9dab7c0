"""What each hand-over between chunks is worth, by latency: reward, jumps, speed, jerk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from policy import DiffusionPolicy, SamplerConfig
from policy.runtime import Policy, serve
from policy.sampling.hand_over import HAND_OVERS
from pusht_env.physics import CONTROL_HZ
from training.benchmark.config import BenchmarkConfig, HandOverConfig
from training.benchmark.measurements import EPISODE_STEPS
from training.benchmark.report import load_policy, open_cache, rollout_engine, write_report
from training.benchmark.row_cache import Row, Task
from training.benchmark.tables import interval_cells, markdown_table, table
from training.evaluation.latency import LatencyConfig
from training.evaluation.rollout import run_episodes
from training.evaluation.smoothness import smoothness

FAILED = 0.5  # an episode that never reaches this reward is stuck

MOTION = {
    "jump_mean": ("jump", ".1f"),
    "jump_p95": ("jump p95", ".0f"),
    "top_speed": ("top speed", ".0f"),
    "jerk": ("jerk", ".1f"),
    "stuck": ("stuck", ".1%"),
}
COLUMNS = {
    "ms": ("latency ms", "g"),
    "hand_over": ("hand-over", ""),
    **{f"reward_{steps}": (f"reward, {steps}", ".3f") for steps in EPISODE_STEPS},
    "gain": ("gain", "+.3f"),
    **MOTION,
}


def report(config: BenchmarkConfig) -> None:
    """Write the report `hand_over`."""
    options = config.hand_over
    base = load_policy(config)
    cache = open_cache(config, base)
    hand_overs = [name for name in HAND_OVERS if name in {"replace", *options.hand_overs}]
    groups = [(ms, hand_over) for ms in options.fixed_ms for hand_over in hand_overs]
    tasks = [
        [_task(config, base, ms=ms, hand_over=name, noise_seed=seed) for seed in options.noise_seeds]
        for ms, name in groups
    ]
    cache.measure_all([task for group in tasks for task in group], "hand_over")
    measured = {
        group: [cache.read(task) for task in found] for group, found in zip(groups, tasks, strict=True)
    }
    rows = table(
        [
            make_row(ms, name, found, replaced=measured[ms, "replace"])
            for (ms, name), found in measured.items()
        ]
    )
    write_report(
        config,
        rows,
        title="What a hand-over is worth",
        introduction=describe_hand_over(options),
        tables=markdown_table(rows, COLUMNS, text_columns=2),
        figures={"": plot_hand_over(rows)},
        measured=[row for found in measured.values() for row in found],
    )


def measure_hand_over(policy: Policy, options: HandOverConfig, *, ms: float, noise_seed: int) -> Row:
    """Rewards and motion of one rollout.

    Returns:
        `max_reward_<steps>`, a number an episode, in the order of their seeds; the keys of `MOTION`.
    """
    latency = LatencyConfig("fixed", ms=ms) if ms else LatencyConfig()
    episodes = run_episodes(
        policy,
        range(options.first_seed, options.first_seed + options.episodes),
        max_steps=max(EPISODE_STEPS),
        noise_seed=noise_seed,
        latency=latency,
        show_progress=False,
    ).episodes
    jumps = [chunk.jump for episode in episodes for chunk in episode.chunks if chunk.jump is not None]
    moved = [smoothness(episode.commands) for episode in episodes if episode.commands is not None]
    return {
        **{
            f"max_reward_{steps}": [episode.within(steps).max_reward for episode in episodes]
            for steps in EPISODE_STEPS
        },
        "jump_mean": float(np.mean(jumps)) if jumps else None,
        "jump_p95": float(np.percentile(jumps, 95)) if jumps else None,
        "top_speed": CONTROL_HZ * float(np.median([each.top_speed for each in moved])),
        "jerk": float(np.median([each.jerk for each in moved])),
        "stuck": float(np.mean([episode.max_reward < FAILED for episode in episodes])),
    }


def make_row(
    ms: float, hand_over: str, measured: Sequence[Row], *, replaced: Sequence[Row]
) -> dict[str, Any]:
    """A row of the CSV from the rollouts with each noise seed, and those of `replace` at the same latency."""
    rewards = {steps: np.array([row[f"max_reward_{steps}"] for row in measured]) for steps in EPISODE_STEPS}
    before = np.array([row[f"max_reward_{EPISODE_STEPS[0]}"] for row in replaced])
    row: dict[str, Any] = {"ms": ms, "hand_over": hand_over}
    for steps, values in rewards.items():
        row |= interval_cells(f"reward_{steps}", values)
    row |= interval_cells("gain", [] if hand_over == "replace" else rewards[EPISODE_STEPS[0]] - before)
    for name in MOTION:
        found = [each[name] for each in measured if each[name] is not None]
        row[name] = float(np.mean(found)) if found else None
    return row


def _task(
    config: BenchmarkConfig, base: DiffusionPolicy, *, ms: float, hand_over: str, noise_seed: int
) -> Task:
    options = config.hand_over
    sampler = replace(SamplerConfig("sequential", options.solver, options.steps), hand_over=hand_over)
    identity = {
        "sampler": asdict(sampler),
        "ms": ms,
        "first_seed": options.first_seed,
        "episodes": options.episodes,
        "noise_seed": noise_seed,
        **rollout_engine(config, base.with_sampler(sampler)),
    }

    def measure(sampler: SamplerConfig) -> Row:
        policy = serve(base.with_sampler(sampler), batch_size=None, engine=config.engine)
        return measure_hand_over(policy, options, ms=ms, noise_seed=noise_seed)

    return Task(
        label=f"{hand_over}, {ms:g} ms, noise seed {noise_seed}",
        cost=options.episodes * options.steps * max(EPISODE_STEPS) / base.config.action_steps,
        identity=identity,
        measure=partial(measure, sampler),
    )


def describe_hand_over(options: HandOverConfig) -> str:
    """What was measured, and what the columns mean."""
    return (
        f"The sampler is sequential, {options.solver}, T = {options.steps}. The simulator goes on while the policy "
        "computes, as in the report latency. Hand-overs are explained in docs/samplers.md.\n\n"
        f"Reward: mean over {options.episodes} episodes (initial states from seed {options.first_seed}) × "
        f"{len(options.noise_seeds)} noise seeds of the largest reward in {EPISODE_STEPS[0]} and in "
        f"{EPISODE_STEPS[1]} control steps of 100 ms, with its 95 % interval over episodes. Gain: in "
        f"{EPISODE_STEPS[0]} steps, over replace in the same episodes. Jump: mean distance in px between a chunk's "
        "targets and those of the chunk before it for the same control steps; its mean and its 95th percentile. Top "
        "speed: largest step of the commands, px/s. Jerk: root mean square of their third difference, px. Both are "
        f"medians over episodes. Stuck: episodes that never reach a reward of {FAILED}."
    )


def plot_hand_over(rows: DataFrame) -> Figure:
    """Reward, jump, top speed and jerk over latency, a line for each hand-over."""
    shown = {
        f"reward_{EPISODE_STEPS[0]}": f"reward, {EPISODE_STEPS[0]} steps",
        "jump_mean": "jump (px)",
        "top_speed": "top speed (px/s)",
        "jerk": "jerk (px)",
    }
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        for hand_over, curve in rows.groupby("hand_over", sort=False):
            axes.plot(curve["ms"], curve[column], "o-", markersize=4, linewidth=1, label=hand_over)
        axes.set(title=title, xlabel="latency (ms)")
        axes.grid(alpha=0.3)
        if not column.startswith("reward"):
            axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(HAND_OVERS))
    return figure
