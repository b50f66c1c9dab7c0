"""A policy beside baselines on demonstrated episodes: errors of each dimension, with intervals, ready for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy import DiffusionPolicy
from policy.task import Task
from training.data.demonstrations import Demonstrations
from training.evaluation.interval import mean_interval
from training.evaluation.offline.baselines import hold_baseline, mean_baseline
from training.evaluation.offline.chunks import DemonstratedChunks, demonstrated_chunks, sampled_chunks
from training.evaluation.offline.errors import ActionErrors, action_errors, share_of_range, varied_range


@dataclass(frozen=True)
class Judgement:
    """What was predicted of some demonstrated episodes, and how far off it was.

    Attributes:
        task: names and units.
        chunks: what was demonstrated.
        sampled: (S, W, action_steps, A) the policy's actions with each of S noise seeds.
        errors: of these.
        ranges: (A,) how far apart actions are that were not judged; NaN for one that does not vary.
        summary: errors of the policy and of the baselines, JSON values.
    """

    task: Task
    chunks: DemonstratedChunks
    sampled: NDArray[np.float32]
    errors: ActionErrors
    ranges: NDArray[np.float64]
    summary: dict[str, Any]


def judge(
    policy: DiffusionPolicy,
    demonstrations: Demonstrations,
    *,
    episodes: Sequence[int] | NDArray[np.int64],
    noise_seeds: Sequence[int],
) -> Judgement:
    """Sample the policy's actions in demonstrated episodes, and compare them with what was demonstrated.

    Ranges and means are of the episodes that are not judged, which are those of the training if the judged ones were
    held out; of the judged ones where there are no others.

    Raises:
        ValueError: for no noise seed, or episodes that cannot be judged.
    """
    if not noise_seeds:
        raise ValueError("at least one noise seed is needed to judge a policy")
    task = demonstrations.task
    chunks = demonstrated_chunks(demonstrations, episodes, policy.config)
    judged = np.unique(chunks.episodes)
    others, whose = other_actions(demonstrations, judged)
    mean, ranges = others.mean(0, dtype=np.float64).astype(np.float32), varied_range(others)
    baselines = (
        hold_baseline(task, chunks, mean),
        mean_baseline(mean, f"the mean action of {whose}", chunks),
    )
    sampled = np.stack([sampled_chunks(policy, chunks, seed) for seed in noise_seeds])
    errors = {"policy": action_errors(sampled, chunks)}
    errors |= {baseline.name: action_errors(baseline.actions[None], chunks) for baseline in baselines}
    summary = {
        "episodes": judged.tolist(),
        "noise_seeds": list(noise_seeds),
        "chunks": len(chunks.steps),
        "steps": int(chunks.is_demonstrated.sum()),
        "baselines": {baseline.name: baseline.meaning for baseline in baselines},
        "ranges_of": whose,
        "overall": {
            name: _with_interval(share_of_range(error.mean_absolute, ranges))
            for name, error in errors.items()
        },
        "dimensions": [
            {
                "name": name,
                "unit": task.action.units[index],
                "range": None if math.isnan(ranges[index]) else float(ranges[index]),
                **{method: _dimension(error, index) for method, error in errors.items()},
                "policy_minus_hold": _with_interval(
                    errors["policy"].mean_absolute[..., index] - errors["hold"].mean_absolute[..., index]
                ),
            }
            for index, name in enumerate(task.action.names)
        ],
    }
    return Judgement(task, chunks, sampled, errors["policy"], ranges, summary)


def other_actions(
    demonstrations: Demonstrations, judged: NDArray[np.int64]
) -> tuple[NDArray[np.float32], str]:
    """The actions (N, A) of the episodes that are not judged, and whose they are, in words."""
    ends = demonstrations.episode_ends
    episode_of_step = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
    is_other = ~np.isin(episode_of_step, judged)
    if is_other.any():
        count = len(ends) - len(judged)
        return demonstrations.actions[is_other], f"the {count} other episode{'s' if count > 1 else ''}"
    return demonstrations.actions, "the judged episodes themselves (there are no others)"


def _dimension(errors: ActionErrors, index: int) -> dict[str, Any]:
    return {
        "mean_absolute": _with_interval(errors.mean_absolute[..., index]),
        "rmse": float(errors.rmse[index]),
        "p95": float(errors.p95[index]),
    }


def _with_interval(values: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean of (S, E) and its 95 % interval over episodes; None of what is no number."""
    if np.isnan(values).any():
        return {"mean": None, "low": None, "high": None}
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high}
