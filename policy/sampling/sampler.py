"""The interface of a sampler: noise → action sequences."""

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
    """Action sequences and their cost.

    Attributes:
        actions: (B, H, A), normalised.
        depth: sequential network evaluations.
        residual: (B,) root mean square by which the last iteration moved the actions, or with a window the last state
            in it; 0 for a sequential sampler.
        cut: whether a deadline stopped the sampler.
    """

    actions: Tensor
    depth: int
    residual: Tensor
    cut: bool = False


class Sampler(Protocol):
    """A function that samples. Everything that does not depend on the observation is prepared."""

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
            guess: (B, H, A) normalised actions that a parallel sampler begins with, in place of its start, or that
                partial denoising begins with.
            called: time at which the inference began, on the clock for deadlines; by default now.
        """
        ...


@dataclass(frozen=True)
class Ingredients:
    """Everything that a method needs besides its options.

    Attributes:
        solver: solver on the device and in the precision to sample in.
        covariance: (D, D) of the policy's flattened action sequences given the observation, normalised.
        switching: schedule of the PCM's weight, for a method that uses a PCM.
        clock: clock for deadlines.
        last_steps: solver of the solver's last steps alone, for partial denoising, or None.
    """

    solver: Solver
    covariance: Tensor | None = None
    switching: SwitchingSchedule = field(default_factory=SwitchingSchedule)
    clock: Clock = time.perf_counter
    last_steps: Solver | None = None
