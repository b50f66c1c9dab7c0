"""Answers in time: a sampler that is interrupted before the iteration that would miss the deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

Clock: TypeAlias = Callable[[], float]
"""→ s, monotonic."""

REMEMBERED = 20  # iterations of each size


@dataclass
class IterationTimes:
    """How long a sampler's iterations have taken, by the number of states that they evaluated.

    An iteration is expected to take as long as the slowest that is remembered of its size, or of the next larger size
    if none is. Those of no known size are expected to take no time: the first call cannot know better.
    """

    seconds: dict[int, deque[float]] = field(default_factory=dict)

    def expect(self, evaluations: int) -> float:
        known = [size for size in self.seconds if size >= evaluations and self.seconds[size]]
        return max(self.seconds[min(known)]) if known else 0.0

    def remember(self, evaluations: int, seconds: float) -> None:
        self.seconds.setdefault(evaluations, deque(maxlen=REMEMBERED)).append(seconds)

    def forget_one(self, evaluations: int) -> None:
        """Drop the oldest time that `expect` goes by: an iteration that is never made would never be timed anew."""
        known = [size for size in self.seconds if size >= evaluations and self.seconds[size]]
        if known:
            self.seconds[min(known)].popleft()


@dataclass
class Deadline:
    """When one answer is due.

    Attributes:
        due: time of `clock`.
        clock: tells the time.
        times: of earlier iterations; this answer's are added.
    """

    due: float
    clock: Clock
    times: IterationTimes
    _began: float = 0.0

    def allows(self, evaluations: int) -> bool:
        """Whether an iteration that evaluates so many states would be in time."""
        if self.clock() + self.times.expect(evaluations) <= self.due:
            return True
        self.times.forget_one(evaluations)
        return False

    def begin(self) -> None:
        """An iteration begins."""
        self._began = self.clock()

    def end(self, evaluations: int) -> None:
        """It ends, after evaluating so many states."""
        self.times.remember(evaluations, self.clock() - self._began)


def device_clock(clock: Clock, device: torch.device) -> Clock:
    """That clock, but it waits for what the device still computes before it tells the time."""
    if device.type != "cuda":
        return clock

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return clock()

    return synchronised
