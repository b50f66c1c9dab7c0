"""Switching from a PCM back to its base while Picard iteration goes on (PCM, So et al. 2025, algorithm 2).

The weight λ of the PCM falls from iteration to iteration; with λ = 0 the fixed point is the base's sequential answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import TypeAlias

from torch import Tensor, nn

from policy.denoiser import Denoise
from policy.networks.lora import set_lora_scale

Switch: TypeAlias = Callable[[float], Denoise]
"""weight λ of the PCM, 0 … 1 → the data prediction x̂ of base and PCM together."""


def switching_weights(
    stiffness: float, trained_iterations: int, iterations: int
) -> tuple[list[float], float]:
    """λ(k) = clip(1 − s·k/K, 0, 1), until it changes no more.

    Args:
        stiffness: s. 0 keeps the PCM for ever.
        trained_iterations: K of the PCM.
        iterations: how many will be asked for at most.

    Returns:
        λ of the iterations k = 0, 1, … in which it changes, and that of all later ones.
    """
    last = 1.0 if stiffness == 0 else 0.0
    weights = (max(0.0, 1 - stiffness * k / trained_iterations) for k in range(iterations))
    return list(takewhile(lambda weight: weight != last, weights)), last


def feature_space(base: Denoise, pcm: Denoise) -> Switch:
    """λ·x̂_PCM + (1 − λ)·x̂_base; a model whose weight is 0 is not evaluated.

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
    base: Denoise, merged: Mapping[float, Denoise], adapted: Denoise, network: nn.Module
) -> Switch:
    """The adapters' weights scaled by λ: one evaluation, whatever λ is.

    Args:
        base: data prediction of the network without adapters.
        merged: for some λ, that of the network with adapters merged into its weights, which costs no more than base.
        adapted: for all other λ, that of the network with adapters beside its weights.
        network: this last one; its scale is set anew before each evaluation, so that samplers may share it.
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
