"""What the policy node counts and measures. Knows no ROS."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW = 1000


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


@dataclass
class PolicyStatistics:
    """Since the node was configured.

    Attributes:
        chunks: sent.
        latencies: of the newest chunks, from the observation's arrival to the chunk's publication, in s.
        inference_seconds: the policy's part of that, in s.
        iterations: of the newest chunk, network evaluations one after the other.
        network_evaluations: of the newest chunk, all of them.
        residual: of the newest chunk, how far the last iteration moved the normalised actions.
        deadline_cuts: chunks whose sampler was stopped by its deadline.
        clamped_points: points outside of the joint limits.
        deadline_misses: chunks that came after the last point of the chunk before them.
        non_finite_chunks: never sent.
        goals_rejected, goals_aborted: by the controller's action server.
        rejections: refused observations by source and reason.
    """

    chunks: int = 0
    latencies: deque[float] = field(default_factory=_window)
    inference_seconds: deque[float] = field(default_factory=_window)
    iterations: int = 0
    network_evaluations: int = 0
    residual: float = 0.0
    deadline_cuts: int = 0
    clamped_points: int = 0
    deadline_misses: int = 0
    non_finite_chunks: int = 0
    goals_rejected: int = 0
    goals_aborted: int = 0
    rejections: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def overheads(self) -> list[float]:
        """What each chunk took beyond inference, in s."""
        pairs = zip(self.latencies, self.inference_seconds, strict=True)
        return [latency - inference for latency, inference in pairs]

    def faults(self) -> int:
        """All counts of things that should not happen."""
        counts = (self.deadline_misses, self.non_finite_chunks, self.goals_rejected, self.goals_aborted)
        return sum(counts) + self.rejections.total()


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; NaN of no values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
