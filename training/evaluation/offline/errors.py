"""How far predicted actions are from demonstrated ones, for each dimension in its unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.offline.chunks import DemonstratedChunks


@dataclass(frozen=True)
class ActionErrors:
    """Errors of S noise seeds in E episodes, each episode counting as much as any other.

    Attributes:
        mean_absolute: (S, E, A) mean absolute error over the steps of an episode.
        rmse: (A,) root of the mean over noise seeds and episodes of an episode's mean square error.
        p95: (A,) 95th percentile of the absolute error over all steps and noise seeds.
    """

    mean_absolute: NDArray[np.float64]
    rmse: NDArray[np.float64]
    p95: NDArray[np.float64]


def action_errors(predicted: NDArray[np.float32], chunks: DemonstratedChunks) -> ActionErrors:
    """Errors of predictions (S, W, action_steps, A) of S noise seeds; a baseline has one."""
    absolute = np.abs(predicted.astype(np.float64) - chunks.actions)
    steps = absolute[:, chunks.is_demonstrated]  # (S, N, A)
    episode_of_step = np.repeat(chunks.episodes, chunks.is_demonstrated.sum(1))
    episodes = [episode_of_step == episode for episode in np.unique(chunks.episodes)]
    return ActionErrors(
        mean_absolute=np.stack([steps[:, of].mean(1) for of in episodes], axis=1),
        rmse=np.sqrt(np.stack([(steps[:, of] ** 2).mean(1) for of in episodes]).mean((0, 1))),
        p95=np.percentile(steps, 95, axis=(0, 1)),
    )


def varied_range(actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """(A,) difference of the largest and the smallest of actions (N, A); NaN where they do not vary."""
    ranges = np.ptp(actions.astype(np.float64), axis=0)
    return np.where(ranges > 0, ranges, np.nan)


def share_of_range(errors: NDArray[np.float64], ranges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., A) errors as shares of each dimension's range, mean over the dimensions that vary: (...,).

    NaN if none varies.
    """
    varies = ~np.isnan(ranges)
    if not varies.any():
        return np.full(errors.shape[:-1], np.nan)
    shares: NDArray[np.float64] = (errors[..., varies] / ranges[varies]).mean(-1)
    return shares
