"""What the policy node counts and measures. Knows no ROS."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from policy import Prediction

WINDOW = 1000
PERCENTS = (50, 95, 99)
COUNTS = (
    "depth",
    "network_evaluations",
    "deadline_cuts",
    "clamped_points",
    "limited_chunks",
    "deadline_misses",
    "late_chunks",
    "non_finite_chunks",
    "stops",
    "unanswered_requests",
    "goals_rejected",
    "goals_aborted",
    "goals_unanswered",
)


def _window() -> deque[float]:
    return deque(maxlen=WINDOW)


@dataclass(kw_only=True)
class PolicyStatistics:
    """Counts and times since the node was configured.

    Attributes:
        chunks: number of chunks that were sent.
        latencies: times of the newest chunks from the observation's arrival to the chunk's publication, in s; also of
            chunks that came too late for that.
        inference_seconds: times of their policy calls, in s.
        depth: network evaluations of the newest chunk that had to follow one another.
        network_evaluations: all network evaluations of the newest chunk.
        residual: how far the last iteration of the newest chunk moved its normalised actions.
        deadline_cuts: number of chunks whose sampler was stopped by its deadline.
        clamped_points: number of points outside of the joint limits.
        limited_chunks: number of chunks that were slowed or clipped, since they were too fast for the joint limits, or
            calmed, since a joint would have swung over its limit between two points.
        deadline_misses: number of chunks that came after the last point of the chunk before them.
        late_chunks: number of chunks that were not sent, since none of their points was still to come.
        non_finite_chunks: number of chunks that were not sent, since they were not finite.
        stops: number of times that the motion was stopped, since observations were lost or the node was deactivated.
        unanswered_requests: number of chunks that the policy's server did not give.
        goals_rejected, goals_aborted: numbers of goals that the controller's action server turned down or gave up.
        goals_unanswered: number of goals that followed one that the action server had not answered.
        rejections: numbers of refused observations by source and reason.
    """

    chunks: int = 0
    latencies: deque[float] = field(default_factory=_window)
    inference_seconds: deque[float] = field(default_factory=_window)
    depth: int = 0
    network_evaluations: int = 0
    residual: float = 0.0
    deadline_cuts: int = 0
    clamped_points: int = 0
    limited_chunks: int = 0
    deadline_misses: int = 0
    late_chunks: int = 0
    non_finite_chunks: int = 0
    stops: int = 0
    unanswered_requests: int = 0
    goals_rejected: int = 0
    goals_aborted: int = 0
    goals_unanswered: int = 0
    rejections: Counter[tuple[str, str]] = field(default_factory=Counter)

    def note(self, prediction: Prediction, *, latency: float, seconds: float) -> None:
        """Take note of what the newest chunk cost: its latency and its inference time, in s."""
        self.depth = prediction.depth
        self.network_evaluations = prediction.network_evaluations
        self.residual = float(prediction.residual[0])
        self.deadline_cuts += prediction.cut
        self.latencies.append(latency)
        self.inference_seconds.append(seconds)

    @property
    def overheads(self) -> list[float]:
        """Latency of each chunk beyond its inference time, in s."""
        pairs = zip(self.latencies, self.inference_seconds, strict=True)
        return [latency - inference for latency, inference in pairs]

    def faults(self) -> int:
        """Number of things that should not happen."""
        counts = (
            self.deadline_misses,
            self.late_chunks,
            self.non_finite_chunks,
            self.goals_rejected,
            self.goals_aborted,
            self.goals_unanswered,
        )
        return sum(counts) + self.rejections.total()

    def values(self) -> dict[str, str]:
        """All of it by name, with the unit in the name."""
        values = {"chunks": str(self.chunks)}
        for name, seconds in (
            ("latency", self.latencies),
            ("inference", self.inference_seconds),
            ("overhead", self.overheads),
        ):
            # NumPy has no percentile of nothing.
            percentiles = np.percentile(seconds, PERCENTS) if seconds else np.full(len(PERCENTS), np.nan)
            for percent, value in zip(PERCENTS, percentiles, strict=True):
                values[f"{name}_p{percent}_ms"] = f"{value * 1e3:.2f}"
        values["residual"] = f"{self.residual:.3g}"
        for name in COUNTS:
            values[name] = str(getattr(self, name))
        values["rejected_observations"] = str(self.rejections.total())
        for (source, reason), count in sorted(self.rejections.items()):
            values[f"rejected_observations.{source}.{reason}"] = str(count)
        return values
