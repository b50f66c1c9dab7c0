"""From measurements to the rows of the report `table3`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policy import SamplerConfig
from training.benchmark.candidates import Candidate
from training.benchmark.measurements import EPISODE_STEPS
from training.benchmark.row_cache import Row

TableRow: TypeAlias = dict[str, Any]
"""Column of the CSV → number or text, None where there is none."""


def make_row(
    candidate: Candidate, accuracy: Row, milliseconds: Sequence[float], rewards: Sequence[Row]
) -> TableRow:
    sampler = candidate.sampler
    row: TableRow = {
        "method": candidate.method,
        "sampler": sampler.name,
        "solver": sampler.solver_name if sampler.is_parallel else None,
        "formulation": sampler.formulation if sampler.is_parallel else None,
        "initialisation": sampler.initialisation if sampler.is_parallel else None,
        "memory": sampler.memory if sampler.is_parallel else None,
        "stiffness": sampler.stiffness if sampler.uses_pcm else None,
        "steps": sampler.steps,
        "iterations": sampler.iterations if sampler.is_parallel else None,
        "depth": accuracy["depth"],
        "network_evaluations": accuracy["network_evaluations"],
        "ms_p50": float(np.percentile(milliseconds, 50)) if milliseconds else None,
        "ms_p99": float(np.percentile(milliseconds, 99)) if milliseconds else None,
    }
    for steps in EPISODE_STEPS:
        maxima = [reward[f"max_reward_{steps}"] for reward in rewards]
        found = mean_and_interval(maxima) if maxima else (None, None, None)
        row |= dict(zip(reward_columns(steps), found, strict=True))
    row |= {name: accuracy[name] for name in ("error_p50", "error_p95", "error_p95_reference")}
    return row


def reward_columns(steps: int) -> tuple[str, str, str]:
    return f"reward_{steps}", f"reward_{steps}_low", f"reward_{steps}_high"


def gain_columns(steps: int) -> tuple[str, str, str]:
    return f"gain_{steps}", f"gain_{steps}_low", f"gain_{steps}_high"


def mean_and_interval(
    rewards: Sequence[Sequence[float]] | NDArray[np.float64],
) -> tuple[float, float | None, float | None]:
    """Mean of rewards (noise seeds, episodes), and the limits of its 95 % interval.

    Normal approximation over episodes, each the mean of its noise seeds: what makes one initial state harder than
    another does not go away with more noises. A single episode says nothing about the spread, and has no limits.
    """
    means = np.mean(rewards, axis=0)
    mean = float(means.mean())
    if len(means) == 1:
        return mean, None, None
    half_width = 1.96 * float(means.std(ddof=1)) / math.sqrt(len(means))
    return mean, mean - half_width, mean + half_width


def compare_with_untrained(
    rows: Sequence[TableRow], compared: Sequence[Candidate], rewards: Sequence[Sequence[Row]]
) -> None:
    """Add to each row with a PCM the same sampler's error without it, and what it gains in reward, with the interval.

    The gain is paired: in the same episodes with the same noises, so that its interval is narrower than those of the
    two rewards. Other rows get None.

    Args:
        rows: by `make_row`.
        compared: the candidate of each row.
        rewards: the rewards of each row, none or one for each noise seed.
    """
    untrained: Mapping[SamplerConfig, int] = {
        candidate.sampler: index for index, candidate in enumerate(compared) if candidate.pcm is None
    }
    for row, candidate, trained_rewards in zip(rows, compared, rewards, strict=True):
        sampler = replace(candidate.sampler, name="picard", stiffness=SamplerConfig().stiffness)
        index = None if candidate.pcm is None else untrained.get(sampler)
        row["error_p95_untrained"] = None if index is None else rows[index]["error_p95"]
        for steps in EPISODE_STEPS:
            gain: tuple[float | None, float | None, float | None] = (None, None, None)
            if index is not None and trained_rewards and rewards[index]:
                maxima, others = (
                    np.array([found[f"max_reward_{steps}"] for found in measured])
                    for measured in (trained_rewards, rewards[index])
                )
                gain = mean_and_interval(maxima - others)
            row |= dict(zip(gain_columns(steps), gain, strict=True))


def compare(rows: Sequence[TableRow], reference_steps: int) -> None:
    """Add to each row how much faster it is than DDIM, and than the fastest sequential sampler of equal reward.

    Of equal reward is one whose means lie in the row's intervals or above, after each number of control steps.
    """
    sequential = [row for row in rows if row["formulation"] is None and row["ms_p50"] is not None]
    (reference,) = [row for row in rows if row["sampler"] == "ddim" and row["steps"] == reference_steps]
    for row in rows:
        row |= {"speedup": None, "equal_method": None, "equal_steps": None, "speedup_to_equal": None}
        if row["ms_p50"] is None:
            continue
        row["speedup"] = reference["ms_p50"] / row["ms_p50"]
        equal = [other for other in sequential if _is_as_good(other, row)]
        if equal:
            fastest = min(equal, key=lambda other: other["ms_p50"])
            row["equal_method"], row["equal_steps"] = fastest["method"], fastest["steps"]
            row["speedup_to_equal"] = fastest["ms_p50"] / row["ms_p50"]


def _is_as_good(other: TableRow, row: TableRow) -> bool:
    for steps in EPISODE_STEPS:
        mean, low, _ = reward_columns(steps)
        if row[low] is None or other[mean] is None or other[mean] < row[low]:
            return False
    return True
