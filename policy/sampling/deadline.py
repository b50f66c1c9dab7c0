"""The deadline of an inference: no iteration starts that would end after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from policy.sampling.picard import Iterate

Clock: TypeAlias = Callable[[], float]
"""→ time in s, monotonic."""

REMEMBERED = 20  # times for each size of an iteration


@dataclass
class IterationTimes:
    """Times of a sampler's iterations, by the number of states that they evaluated.

    The expected time of an iteration is the slowest one remembered of its size, else of the next larger size, else 0.
    """

    seconds: dict[int, deque[float]] = field(default_factory=dict)

    def expect(self, evaluations: int) -> float:
        known = [size for size in self.seconds if size >= evaluations and self.seconds[size]]
        return max(self.seconds[min(known)]) if known else 0.0

    def remember(self, evaluations: int, seconds: float) -> None:
        self.seconds.setdefault(evaluations, deque(maxlen=REMEMBERED)).append(seconds)

    def forget_one(self, evaluations: int) -> None:
        """Forget the oldest time behind `expect`.

        Otherwise one slow iteration could forbid all later ones, and none would ever be timed again.
        """
        known = [size for size in self.seconds if size >= evaluations and self.seconds[size]]
        if known:
            self.seconds[min(known)].popleft()


@dataclass
class Deadline:
    """Deadline of one inference.

    Attributes:
        due: time on `clock`, in s.
        clock: clock that the deadline is kept by.
        times: times of earlier iterations; this inference adds its own.
        has_cut: whether an iteration was left out to keep it.
    """

    due: float
    clock: Clock
    times: IterationTimes
    has_cut: bool = False

    def in_time(self, iterates: Iterator[Iterate], *, first: int = 0) -> Iterator[Iterate]:
        """The first iterate, and all others that are ready in time.

        Args:
            iterates: iterates of Picard iteration without a window.
            first: state that its first iteration begins with.
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
        """Whether an iteration that evaluates this many states would be in time."""
        if self.clock() + self.times.expect(evaluations) <= self.due:
            return True
        self.times.forget_one(evaluations)
        return False


def device_clock(clock: Clock, device: torch.device) -> Clock:
    """The clock, read only after the device has finished its work."""
    if device.type != "cuda":
        return clock

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return clock()

    return synchronised
