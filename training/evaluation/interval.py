"""The 95 % interval of a mean: how this project states the uncertainty of a mean reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


def mean_interval(
    values: Sequence[float] | Sequence[Sequence[float]] | NDArray[np.float64], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Mean over episodes, and the limits of its 95 % interval by SciPy's bootstrap (BCa).

    Episodes are resampled, each as the mean of its noise seeds: more noise seeds do not make a hard initial state
    easier. The limits are means of resampled values, so those of rewards stay in [0, 1]; ± 1.96 standard errors can
    leave it.

    Args:
        values: (episodes,) or (noise seeds, episodes).
        seed: seed of the resampling.

    Returns:
        Mean, lower and upper limit. A single episode says nothing about the spread: its limits are None.

    Raises:
        ValueError: if there are no values.
    """
    episodes = np.atleast_2d(np.asarray(values, np.float64)).mean(axis=0)
    if episodes.size == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(episodes.mean())
    if len(episodes) == 1:
        return mean, None, None
    if np.ptp(episodes) == 0:  # all resamples are equal: BCa would return NaN
        return mean, mean, mean
    from scipy.stats import bootstrap  # takes most of a second, which no command should take to start

    found = bootstrap((episodes,), np.mean, confidence_level=LEVEL, rng=np.random.default_rng(seed))
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)
