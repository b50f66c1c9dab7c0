"""Picard Consistency Training: the loss and the errors of a PCM (So et al. 2025, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, fields

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
        executed: (B,) control steps since the chunk before; 0: a cold start.
    """

    condition: Tensor
    states: Tensor
    solution: Tensor
    executed: Tensor

    def rows(self, rows: Tensor | slice) -> Samples:
        return Samples(*(getattr(self, part.name)[rows] for part in fields(self)))


@dataclass(frozen=True)
class PicardMap:
    """One Picard iteration Φ with any network.

    Attributes:
        solver: T steps.
        recurrence: recurrence by which corrections spread.
        exact: number of states after the noise that X⁰ shares with X*.
        start: the start, if the trained network makes its network call; else None.
        first_recurrence: recurrence of the first iteration, if that is another one, as after a warm start.
    """

    solver: Solver
    recurrence: Recurrence
    exact: int
    start: Start | None = None
    first_recurrence: Recurrence | None = None

    def iterate(
        self, network: ConditionalUnet1D, condition: Tensor, states: Tensor, *, k: int, frozen: int = 0
    ) -> Tensor:
        """X^{k+1} from X^k, both (B, T+1, H, A); differentiable.

        Args:
            k: number of iterations before.
            frozen: number of states that stay as they are, after the exact ones.
        """
        first = self.exact + frozen
        denoise = make_denoise(network, self.solver, condition)
        recurrence = self.recurrence if k or self.first_recurrence is None else self.first_recurrence
        changed = picard_step(denoise, self.solver, states, recurrence=recurrence, first=first)
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

    For each sample it is m, a weighted sum of mean squares of the differences. With a floor c it is the robust
    √(m + c²) (pseudo-Huber, Song & Dhariwal 2024, section 3.3). Otherwise the few samples that jump from one way of
    acting to another would count for more than all others.

    Attributes:
        final_state_weight: weight of the last state's mean square in m; 0 in the paper.
        floor: c; 0: the plain squares of the paper.
        states_weight: weight of the mean square over all states; 1 in the paper.
        chunk_weight: weight of the mean square over the last state's executed actions; 0 in the paper.
        chunk: the first of these actions, and the one after the last; None: all.
    """

    final_state_weight: float = 0.0
    floor: float = 0.0
    states_weight: float = 1.0
    chunk_weight: float = 0.0
    chunk: tuple[int, int] | None = None

    def __call__(self, states: Tensor, solution: Tensor) -> Tensor:
        """Distance (B,) of two sets of states (B, T+1, H, A); the noise does not count."""
        squares = (states - solution)[:, 1:].square()
        distance = self.states_weight * squares.mean((1, 2, 3))
        distance = distance + self.final_state_weight * squares[:, -1].mean((1, 2))
        if self.chunk_weight:
            executed = slice(*(self.chunk or (None,)))
            distance = distance + self.chunk_weight * squares[:, -1, executed].mean((1, 2))
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
    base_weight: float = 1.0,
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
        base_weight: weight of these losses.
    """
    states = picard.states(network, samples, k)
    loss = states.new_zeros(())
    for done in range(unrolled_iterations + base_iterations):
        if done < unrolled_iterations:
            # No state is frozen, although k are exact: samplers evaluate all states until a PCM is switched off.
            states, weight = picard.iterate(network, samples.condition, states, k=k + done), 1.0
        else:
            assert base is not None, "base_iterations need a base"
            frozen, weight = done - unrolled_iterations, base_weight
            states = picard.iterate(base, samples.condition, states, k=k + done, frozen=frozen)
        distances = distance(states, samples.solution)
        if relative:
            distances = distances / distance(samples.states[:, k + done + 1], samples.solution)
        loss = loss + weight * distances.mean()
    return loss / (unrolled_iterations + base_weight * base_iterations)
