"""The switch from a PCM back to its base during Picard iteration (PCM, So et al. 2025, algorithm 2).

The weight λ of the PCM falls from iteration to iteration. With λ = 0 the fixed point is the base's sequential answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count, islice, takewhile
from typing import TypeAlias

from torch import Tensor, nn

from policy.denoiser import Denoise
from policy.networks.lora import set_lora_scale

Switch: TypeAlias = Callable[[float], Denoise]
"""weight λ of the PCM, 0 … 1 → the data prediction x̂ of base and PCM together."""

MOST_ITERATIONS = 1000  # iterations in which λ may change, where their number is not limited


@dataclass(frozen=True)
class SwitchingSchedule:
    """The weight λ of a PCM while a chunk is sampled. The default is a sampler without a PCM.

    Attributes:
        changing: λ of the iterations k = 0, 1, …, as long as it changes.
        last: λ of all later iterations.
        start: λ in the network calls of the start.
        changing_warm: `changing` after a warm start.
    """

    changing: tuple[float, ...] = ()
    last: float = 0.0
    start: float = 0.0
    changing_warm: tuple[float, ...] = ()

    @property
    def iterations(self) -> tuple[float, ...]:
        """λ of each iteration. The last one stays."""
        return (*self.changing, self.last)

    @property
    def warm_iterations(self) -> tuple[float, ...]:
        """λ of each iteration after a warm start. The last one stays."""
        return (*self.changing_warm, self.last)


def switching_schedule(
    stiffness: float,
    trained_iterations: int,
    *,
    warm_trained_iterations: int = 0,
    iterations: int = 0,
    warm_iterations: int = 0,
    start: float = 0.0,
) -> SwitchingSchedule:
    """λ(k) = clip(1 − s·k/K, 0, 1).

    Args:
        stiffness: s; 0: the PCM is never switched off.
        trained_iterations: K of the PCM from cold starts; 0: it was not trained from them, and is left out.
        warm_trained_iterations: the same from warm starts.
        iterations: largest number of iterations; 0: no limit.
        warm_iterations: the same after a warm start.
        start: λ in the network calls of the start.
    """
    last = 1.0 if stiffness == 0 else 0.0

    def changing(trained: int, most: int) -> tuple[float, ...]:
        if not trained:
            return ()
        weights = (max(0.0, 1 - stiffness * k / trained) for k in count())
        return tuple(takewhile(lambda weight: weight != last, islice(weights, most or MOST_ITERATIONS)))

    return SwitchingSchedule(
        changing(trained_iterations, iterations),
        last,
        start,
        changing(warm_trained_iterations, warm_iterations or iterations),
    )


def feature_space(base: Denoise, pcm: Denoise) -> Switch:
    """λ·x̂_PCM + (1 − λ)·x̂_base. A network of weight 0 is not evaluated.

    An iteration is affine in x̂, so this mixes its results too: λ·Φ(X; θ_PCM) + (1 − λ)·Φ(X; θ_base).
    """

    def switch(weight: float) -> Denoise:
        if weight == 0:
            return base
        if weight == 1:
            return pcm
        return lambda states, steps: weight * pcm(states, steps) + (1 - weight) * base(states, steps)

    return switch


def parameter_space(
    base: Denoise, *, merged: Mapping[float, Denoise], adapted: Denoise, network: nn.Module
) -> Switch:
    """The network with its adapters scaled by λ: one evaluation, whatever λ is.

    Args:
        base: data prediction of the network without adapters.
        merged: λ → data prediction of the network with adapters merged into its weights, which costs no more than base.
        adapted: data prediction of the network with adapters beside its weights, for every other λ.
        network: network behind `adapted`. Its scale is set before each evaluation, so samplers can share it.
    """

    def switch(weight: float) -> Denoise:
        if weight == 0:
            return base
        if weight in merged:
            return merged[weight]

        def denoise(states: Tensor, steps: slice) -> Tensor:
            set_lora_scale(network, weight)
            return adapted(states, steps)

        return denoise

    return switch
