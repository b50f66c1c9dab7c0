"""Cold and warm starts, which one PCM is trained from: the loss over samples of both, and its errors from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policy import DiffusionPolicy
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import PCM
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import exact_states, make_start
from policy.sampling.warm_start import first_recurrence
from policy.solvers import Solver
from training.pcm.picard_consistency import PicardMap, Samples, picard_consistency_loss


@dataclass(frozen=True)
class StartKind:
    """Cold or warm starts.

    Attributes:
        prefix: what the names of their numbers begin with.
        is_warm: which of both.
        picard: Φ from there.
        calls: network calls of the start.
        iterations: number K of Picard iterations to train for.
    """

    prefix: str
    is_warm: bool
    picard: PicardMap
    calls: int
    iterations: int

    def of(self, samples: Samples) -> Samples:
        """The samples that start this way."""
        return samples.rows((samples.executed > 0) == self.is_warm)

    def inexact(self, iterations: int) -> int:
        """How many of the first iterations leave an error without training: later ones have nothing to gain."""
        return min(iterations, max(1, self.picard.solver.steps - self.calls - 1))

    def columns(self, iterations: int) -> list[tuple[str, str, str]]:
        """Names of the errors after 1, 2, … iterations: without training, by the PCM, and by it and then the base."""
        depths = [self.calls + k + 1 for k in range(iterations)]
        ways = ("training_free", "pcm", "pcm_first")
        return [(*(f"{self.prefix}{way}_depth_{depth}" for way in ways),) for depth in depths]  # type: ignore[misc]


def start_kinds(pcm: PCM, base: DiffusionPolicy, solver: Solver) -> list[StartKind]:
    """The kinds of starts that a PCM is trained from."""
    recurrence = make_recurrence(pcm.jacobian, solver, base.covariance)
    kinds = []
    if pcm.iterations:
        calls, start = exact_states(pcm.start), None
        if pcm.start_model == "pcm":
            start = make_start(pcm.start, solver, covariance=base.covariance)
        cold = PicardMap(solver, recurrence, exact=calls if start is None else 0, start=start)
        kinds.append(StartKind("", False, cold, calls=calls, iterations=pcm.iterations))
    if pcm.warm_iterations:
        trusting = first_recurrence(pcm.jacobian, solver, base.covariance)
        warm = PicardMap(solver, recurrence, exact=0, first_recurrence=trusting)
        kinds.append(StartKind("warm_", True, warm, calls=0, iterations=pcm.warm_iterations))
    return kinds


def loss_of_all(
    network: ConditionalUnet1D,
    kinds: Sequence[StartKind],
    samples: Samples,
    *,
    weights: Sequence[float],
    ks: Sequence[int],
    base_iterations: int,
    **options: Any,
) -> Tensor:
    """Mean of `picard_consistency_loss` over samples of all kinds.

    Args:
        network: network to train.
        kinds: kinds of starts.
        samples: batch of samples.
        weights: α(k) of each kind.
        ks: k of each kind.
        base_iterations: iterations by the base after the network's; fewer where the base is exact by then.
        options: further ones of `picard_consistency_loss`.
    """
    loss = samples.states.new_zeros(())
    for kind, weight, k in zip(kinds, weights, ks, strict=True):
        chosen = kind.of(samples)
        share = len(chosen.states) / len(samples.states)
        if not share:
            # Workers that share a batch wait for one another at every call of the network: none may leave one out.
            chosen = samples.rows(slice(1))
        left = kind.inexact(kind.iterations + base_iterations) - kind.iterations
        after = min(base_iterations, max(0, left))
        mean = picard_consistency_loss(network, kind.picard, chosen, k=k, base_iterations=after, **options)
        loss = loss + share * weight * mean
    return loss


@torch.no_grad()
def held_out_errors(
    network: ConditionalUnet1D,
    base: ConditionalUnet1D,
    picard: PicardMap,
    *,
    samples: Samples,
    iterations: int,
) -> tuple[list[float], list[float]]:
    """Errors after 1, 2, … iterations: by the network alone, and by the network first and the base after it."""
    first = picard.states(network, samples, 0)
    first = picard.iterate(network, samples.condition, first, k=0)
    errors, errors_switched = [error_p95(first, samples.solution)], [error_p95(first, samples.solution)]
    states = switched = first
    for k in range(1, iterations):
        states = picard.iterate(network, samples.condition, states, k=k, frozen=k)
        # States made by the network are not the base's. Only iterations by the base make states exact.
        switched = picard.iterate(base, samples.condition, switched, k=k, frozen=k - 1)
        errors.append(error_p95(states, samples.solution))
        errors_switched.append(error_p95(switched, samples.solution))
    return errors, errors_switched


def training_free_errors(kind: StartKind, held_out: Samples, iterations: int) -> list[float]:
    """Errors after 1, 2, … iterations of the base from a kind of start."""
    samples = kind.of(held_out)
    return [error_p95(samples.states[:, k + 1], samples.solution) for k in range(iterations)]


def error_p95(states: Tensor, solution: Tensor) -> float:
    """95th percentile over samples of the largest difference of an action, clipped as a policy clips them.

    Args:
        states, solution: both (B, T+1, H, A).
    """
    largest = (states[:, -1].clamp(-1, 1) - solution[:, -1]).abs().amax((1, 2))
    return float(np.percentile(largest.double().cpu(), 95))


def format_errors(numbers: Mapping[str, float], kinds: Sequence[StartKind], iterations: int) -> str:
    """A table of errors by kind and depth."""
    lines = [f"{'start':>5}  {'depth':>5}  {'training-free':>13}  {'PCM':>8}  {'PCM first, base after':>21}"]
    for kind in kinds:
        name = "warm" if kind.is_warm else "cold"
        for k, columns in enumerate(kind.columns(iterations)):
            free, always, first = (numbers[column] for column in columns)
            lines.append(f"{name:>5}  {kind.calls + k + 1:>5}  {free:>13.4f}  {always:>8.4f}  {first:>21.4f}")
    return "\n".join(lines)
