"""What a policy must beat to have learnt anything: predictions that need no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policy.task import Task
from training.evaluation.offline.chunks import DemonstratedChunks


@dataclass(frozen=True)
class Baseline:
    """A prediction for each demonstrated chunk.

    Attributes:
        name: short, for tables.
        meaning: what it predicts, in words.
        actions: (W, action_steps, A) in the actions' units.
    """

    name: str
    meaning: str
    actions: NDArray[np.float32]


def observed_positions(task: Task) -> tuple[int | None, ...]:
    """For each action the index of the observed number with the same name and unit; None without exactly one."""
    observed = [
        (name, unit) for part in task.vectors for name, unit in zip(part.names, part.units, strict=True)
    ]
    commanded = list(zip(task.action.names, task.action.units, strict=True))
    return tuple(observed.index(each) if observed.count(each) == 1 else None for each in commanded)


def hold_baseline(task: Task, chunks: DemonstratedChunks, mean: NDArray[np.float32]) -> Baseline:
    """The robot stays where it is: the newest observed position all along the chunk.

    Actions that are not observed under their own name and unit hold the last action instead. At an episode's first step
    there is none, and they take the mean.

    Args:
        task: names and units of observations and actions.
        chunks: what is predicted.
        mean: (A,) of the actions.
    """
    positions = observed_positions(task)
    held = np.where(np.isnan(chunks.last_actions), mean, chunks.last_actions)
    for dimension, position in enumerate(positions):
        if position is not None:
            held[:, dimension] = chunks.observations[:, -1, position]
    unobserved = [
        name for name, position in zip(task.action.names, positions, strict=True) if position is None
    ]
    meaning = "hold the last position"
    if len(unobserved) == task.action_dim:
        meaning = "hold the last action (no action is observed under its own name and unit)"
    elif unobserved:
        meaning += f"; the last action of {', '.join(unobserved)}, not observed under that name and unit"
    return Baseline("hold", meaning, _along(held, chunks))


def mean_baseline(mean: NDArray[np.float32], meaning: str, chunks: DemonstratedChunks) -> Baseline:
    """The mean (A,) of some actions at every step; `meaning` says of which."""
    return Baseline("mean", meaning, _along(np.broadcast_to(mean, chunks.last_actions.shape), chunks))


def _along(actions: NDArray[np.float32], chunks: DemonstratedChunks) -> NDArray[np.float32]:
    """(W, A) → (W, action_steps, A)."""
    return np.broadcast_to(actions[:, None], chunks.actions.shape).astype(np.float32)
