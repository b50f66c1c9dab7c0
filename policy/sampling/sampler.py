"""What a sampler is: noise → action sequences."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from policy.sampling.deadline import Clock
from policy.sampling.start import Draw
from policy.sampling.switching import Switch, SwitchingSchedule
from policy.solvers import Solver


@dataclass(frozen=True)
class Sample:
    """Action sequences and what they took.

    Attributes:
        actions: (B, H, A), normalised.
        depth: network evaluations, one after the other.
        residual: (B,) root mean square of how far the last iteration moved the actions, with a window the last state in
            it; 0 for a sequential sampler.
        cut: whether a deadline ended it before the sampler would have.
    """

    actions: Tensor
    depth: int
    residual: Tensor
    cut: bool = False


class Sampler(Protocol):
    """A function that samples. All that does not depend on the observation is prepared."""

    def __call__(
        self,
        switch: Switch,
        noise: Tensor,
        draw: Draw,
        *,
        guess: Tensor | None = None,
        called: float | None = None,
    ) -> Sample:
        """Sample.

        Args:
            switch: weight of a PCM → data prediction.
            noise: (B, H, A).
            draw: source of further noise.
            guess: (B, H, A) normalised actions that a parallel sampler starts from, in place of its initial trajectory.
            called: time at which the inference began, by the clock for deadlines; by default now.
        """
        ...


@dataclass(frozen=True)
class Ingredients:
    """What a method needs besides its options.

    Attributes:
        solver: on the device and in the precision to sample in.
        covariance: (D, D) of the policy's flattened action sequences given the observation, normalised.
        switching: the weight of the PCM, if the method uses one.
        clock: tells the time for deadlines.
    """

    solver: Solver
    covariance: Tensor | None = None
    switching: SwitchingSchedule = field(default_factory=SwitchingSchedule)
    clock: Clock = time.perf_counter
