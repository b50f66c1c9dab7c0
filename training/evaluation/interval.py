"""The 95 % interval of a mean: the one way in which this project states how sure a mean reward is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


def mean_interval(
    values: Sequence[float] | Sequence[Sequence[float]] | NDArray[np.float64], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Mean of episodes, and the limits of its 95 % interval by SciPy's bootstrap (BCa).

    Episodes are resampled, each as the mean of its noise seeds: what makes one initial state harder than another does
    not go away with more noises. The limits are means of values that were there, so that those of rewards stay in
    [0, 1], where ± 1.96 standard errors leave it.

    Args:
        values: (episodes,) or (noise seeds, episodes).
        seed: of the resampling.

    Returns:
        Mean, lower and upper limit. A single episode says nothing about the spread, and has no limits.

    Raises:
        ValueError: if there are no values.
    """
    episodes = np.atleast_2d(np.asarray(values, np.float64)).mean(axis=0)
    if episodes.size == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(episodes.mean())
    if len(episodes) == 1:
        return mean, None, None
    if np.ptp(episodes) == 0:  # every resample is the same, of which BCa makes NaN
        return mean, mean, mean
    from scipy.stats import bootstrap  # takes most of a second, which no command should take to start

    found = bootstrap((episodes,), np.mean, confidence_level=LEVEL, rng=np.random.default_rng(seed))
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)
