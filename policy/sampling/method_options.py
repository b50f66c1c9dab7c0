"""Options of a sampler that belong to some methods: when they stop, where they start, and what they iterate."""

from __future__ import annotations

from dataclasses import dataclass

from policy.sampling.options import choice, number
from policy.sampling.recurrence import JACOBIANS
from policy.sampling.start import STARTS
from policy.sampling.warm_start import WARM_STARTS

AUTO = "auto"
SPACES = ("feature", "parameter")


@dataclass(frozen=True)
class StopConfig:
    """Limits of a parallel method. Without one it ends at the sequential answer."""

    iterations: int = number(
        0,
        (0, 1000),
        "largest number of iterations; 0: no limit, since T of them give the sequential answer",
    )
    tolerance: float = number(
        0.0,
        (0.0, 10.0),
        "largest movement of a state that counts as converged, in standard deviations of a step; 0: no test",
    )
    deadline_ms: float = number(
        0.0,
        (0.0, 1e6),
        "time limit of one inference, in ms: no iteration starts that would end after it, but the first always "
        "runs; 0: no limit",
    )
    warm_iterations: int = number(
        0, (0, 1000), "largest number of iterations after a warm start; 0: that of sampler.stop.iterations"
    )


@dataclass(frozen=True)
class ParallelConfig:
    """Options of every parallel method."""

    window: int = number(0, (0, 1000), "solver steps that are evaluated at once; 0: all")
    memory: int = number(
        0,
        (0, 100),
        "earlier iterates that Anderson acceleration combines with the newest; 0: no acceleration",
    )
    warm_start: str = choice(
        AUTO,
        (AUTO, *WARM_STARTS),
        "what the start takes over from the previous chunk: nothing, its actions, or its noise too; auto: what the "
        "PCM was trained for, else none",
    )


@dataclass(frozen=True)
class PicardConfig:
    """Options of Picard iteration: how corrections spread, and where it starts."""

    jacobian: str = choice(
        AUTO,
        (AUTO, *JACOBIANS),
        "model of how corrections spread to later states; auto: the PCM's own, else preconditioned",
    )
    start: str = choice(
        AUTO, (AUTO, *STARTS), "states before the first iteration; auto: the PCM's own, else fresh"
    )
    start_calls: int = number(1, (1, 1000), "sequential network calls M of the start held")


@dataclass(frozen=True)
class ParaSolverConfig:
    """Options of ParaSolver, which is Picard iteration over sub-intervals of several steps."""

    sub_intervals: int = number(
        0, (0, 1000), "number N of sub-intervals, a divisor of the steps; 0: as many as steps"
    )
    start_calls: int = number(1, (1, 1000), "sequential network calls M of the start")


@dataclass(frozen=True)
class PcmConfig:
    """Options of the switch from a PCM to its base."""

    space: str = choice(
        AUTO,
        (AUTO, *SPACES),
        "what the PCM's weight λ scales: data predictions (feature) or its adapters (parameter); auto: parameter if "
        "it has adapters, else feature",
    )
    stiffness: float = number(
        1.0,
        (0.0, 1000.0),
        "stiffness s of the switch: iteration k = 0, 1, … gives the PCM the weight λ(k) = 1 − s·k/K, at least 0, "
        "with the K that it was trained for; 0: always 1",
    )
