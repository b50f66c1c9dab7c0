"""The error of sampled actions at a training's validations, as columns of its log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policy import DiffusionPolicy
from policy.task import Task
from training.evaluation.offline.chunks import DemonstratedChunks, sampled_chunks
from training.evaluation.offline.errors import action_errors, share_of_range

OVERALL = "held_out_error"


def error_columns(task: Task) -> list[str]:
    """Names of what `held_out_errors` returns."""
    return [OVERALL, *(f"{OVERALL}/{name}" for name in task.action.names)]


def held_out_errors(
    policy: DiffusionPolicy,
    chunks: DemonstratedChunks,
    task: Task,
    *,
    ranges: NDArray[np.float64],
    noise_seed: int,
) -> dict[str, float]:
    """Mean absolute errors of the policy's actions: of each dimension in its unit, of all as a share of their ranges.

    Args:
        policy: with the sampler to judge it by.
        chunks: of the held-out episodes.
        task: names of the actions.
        ranges: (A,) of the training's actions, NaN where they do not vary.
        noise_seed: the same at each validation, so that its errors differ by the weights alone.
    """
    errors = action_errors(sampled_chunks(policy, chunks, noise_seed)[None], chunks).mean_absolute
    overall = share_of_range(errors, ranges).mean()
    return dict(zip(error_columns(task), [float(overall), *errors.mean((0, 1)).tolist()], strict=True))
