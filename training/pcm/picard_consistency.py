"""Picard Consistency Training: the loss and the errors of a PCM (So et al. 2025, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policy.denoiser import make_denoise
from policy.networks.unet import ConditionalUnet1D
from policy.sampling.picard import picard_step
from policy.sampling.recurrence import Recurrence
from policy.sampling.start import Start
from policy.solvers import Solver

LOSS_WEIGHTS = ("constant", "inverse", "inverse_std", "training_free")


@dataclass(frozen=True)
class Samples:
    """Rows of a store of Picard trajectories, on the device to train on.

    Attributes:
        condition: (B, C) normalised observations.
        states: (B, K+1, T+1, H, A) states X⁰ … X^K by the base.
        solution: (B, T+1, H, A) sequential states X*.
    """

    condition: Tensor
    states: Tensor
    solution: Tensor

    def rows(self, rows: Tensor | slice) -> Samples:
        return Samples(self.condition[rows], self.states[rows], self.solution[rows])


@dataclass(frozen=True)
class PicardMap:
    """One Picard iteration Φ with any network.

    Attributes:
        solver: T steps.
        recurrence: recurrence by which corrections spread.
        exact: number of states after the noise that X⁰ shares with X*.
        start: the start, if the trained network makes its network call; else None.
    """

    solver: Solver
    recurrence: Recurrence
    exact: int
    start: Start | None = None

    def iterate(
        self, network: ConditionalUnet1D, condition: Tensor, states: Tensor, *, frozen: int = 0
    ) -> Tensor:
        """X^{k+1} from X^k, both (B, T+1, H, A); differentiable.

        Args:
            frozen: number of states that stay as they are, after the exact ones.
        """
        first = self.exact + frozen
        denoise = make_denoise(network, self.solver, condition)
        changed = picard_step(denoise, self.solver, states, recurrence=self.recurrence, first=first)
        return torch.cat((states[:, : first + 1], changed), 1)

    def states(self, network: ConditionalUnet1D, samples: Samples, k: int) -> Tensor:
        """X^k (B, T+1, H, A) by the base, or X⁰ by the network itself."""
        if self.start is None:
            return samples.states[:, k]
        denoise = make_denoise(network, self.solver, samples.condition)
        return self.start(denoise, samples.solution[:, 0], torch.randn)


@dataclass(frozen=True)
class Distance:
    """Distance of states from X*.

    For each sample it is m, the mean square of the differences over all states and actions. With a floor c it is the
    robust √(m + c²) (pseudo-Huber, Song & Dhariwal 2024, section 3.3). Otherwise the few samples that jump from one way
    of acting to another would count for more than all others.

    Attributes:
        final_state_weight: weight of the last state's own mean square, which is added to m; 0 in the paper.
        floor: c; 0: the plain squares of the paper.
    """

    final_state_weight: float = 0.0
    floor: float = 0.0

    def __call__(self, states: Tensor, solution: Tensor) -> Tensor:
        """Distance (B,) of two sets of states (B, T+1, H, A); the noise does not count."""
        squares = (states - solution)[:, 1:].square()
        distance = squares.mean((1, 2, 3)) + self.final_state_weight * squares[:, -1].mean((1, 2))
        return (distance + self.floor**2).sqrt() if self.floor > 0 else distance


SQUARES = Distance()


def loss_weight(kind: str, k: int, *, iterations: int, solver: Solver) -> float:
    """α(k), the weight of the loss after iteration k = 0 … K−1.

    ``constant`` is 1 and ``inverse`` is 1/(k+1). ``inverse_std`` is 1/√Var(k): iteration k of K stands for the state
    i = ⌊k·T/K⌋, which is as far from noise to action as k is in K, and Var(k) = 1 − ᾱ_i is the variance of its noise.
    ``training_free`` is 1 too, see `picard_consistency_loss`.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind in ("constant", "training_free"):
        return 1.0
    if kind == "inverse":
        return 1 / (k + 1)
    if kind == "inverse_std":
        state = k * solver.steps // iterations
        return float((1 - solver.alphas_cumprod[state]) ** -0.5)
    raise ValueError(f"loss_weight must be one of {', '.join(LOSS_WEIGHTS)}, got {kind!r}")


def picard_consistency_loss(
    network: ConditionalUnet1D,
    picard: PicardMap,
    samples: Samples,
    *,
    k: int,
    distance: Distance = SQUARES,
    relative: bool = False,
    unrolled_iterations: int = 1,
    base: ConditionalUnet1D | None = None,
    base_iterations: int = 0,
) -> Tensor:
    """‖X* − Φ(X^k)‖² (section 4.1) with the distance as chosen, without its weight α(k).

    Args:
        network: network to train.
        picard: Φ.
        samples: batch of samples.
        k: number of iterations by the base before the first one here.
        distance: distance of states from X*.
        relative: whether to divide each sample's distance by the one after as many iterations of the base. Then small
            errors, at a late iteration or of an easy sample, count as much as large ones.
        unrolled_iterations: number of iterations by the network, each from the result of the one before. The mean of
            their losses counts; 1 in the paper.
        base: network of the iterations after that; not trained.
        base_iterations: number of these iterations. Their losses count as well; 0 in the paper.
    """
    states = picard.states(network, samples, k)
    loss = states.new_zeros(())
    for done in range(unrolled_iterations + base_iterations):
        if done < unrolled_iterations:
            # No state is frozen, although k are exact: samplers evaluate all states until a PCM is switched off.
            states = picard.iterate(network, samples.condition, states)
        else:
            assert base is not None, "base_iterations need a base"
            states = picard.iterate(base, samples.condition, states, frozen=done - unrolled_iterations)
        distances = distance(states, samples.solution)
        if relative:
            distances = distances / distance(samples.states[:, k + done + 1], samples.solution)
        loss = loss + distances.mean()
    return loss / (unrolled_iterations + base_iterations)


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
    first = picard.iterate(network, samples.condition, first)
    errors, errors_switched = [error_p95(first, samples.solution)], [error_p95(first, samples.solution)]
    states = switched = first
    for k in range(1, iterations):
        states = picard.iterate(network, samples.condition, states, frozen=k)
        # States made by the network are not the base's. Only iterations by the base make states exact.
        switched = picard.iterate(base, samples.condition, switched, frozen=k - 1)
        errors.append(error_p95(states, samples.solution))
        errors_switched.append(error_p95(switched, samples.solution))
    return errors, errors_switched


def error_p95(states: Tensor, solution: Tensor) -> float:
    """95th percentile over samples of the largest difference of an action, clipped as a policy clips them.

    Args:
        states, solution: both (B, T+1, H, A).
    """
    largest = (states[:, -1].clamp(-1, 1) - solution[:, -1]).abs().amax((1, 2))
    return float(np.percentile(largest.double().cpu(), 95))
