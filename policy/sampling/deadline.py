"""Answers in time: no iteration starts that would end after the deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from policy.sampling.picard import Iterate

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
        has_cut: whether an iteration was left out for it.
    """

    due: float
    clock: Clock
    times: IterationTimes
    has_cut: bool = False

    def in_time(self, iterates: Iterator[Iterate], *, first: int = 0) -> Iterator[Iterate]:
        """The iterates that are ready in time, and the first one in any case.

        Args:
            iterates: of an iteration that evaluates all states at once.
            first: the state that its first iteration starts from.
        """
        while True:
            began = self.clock()
            iterate = next(iterates, None)
            if iterate is None:
                return
            batch, steps = len(iterate.states), iterate.states.shape[1] - 1
            self.times.remember(batch * (steps - first), self.clock() - began)
            yield iterate
            first = iterate.first
            if first < steps and not self._allows(batch * (steps - first)):
                self.has_cut = True
                return

    def _allows(self, evaluations: int) -> bool:
        """Whether an iteration that evaluates so many states would be in time."""
        if self.clock() + self.times.expect(evaluations) <= self.due:
            return True
        self.times.forget_one(evaluations)
        return False


def device_clock(clock: Clock, device: torch.device) -> Clock:
    """That clock, but it waits for what the device still computes before it tells the time."""
    if device.type != "cuda":
        return clock

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return clock()

    return synchronised
