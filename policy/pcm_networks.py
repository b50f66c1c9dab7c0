"""The networks of a PCM for the weights λ of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policy.denoiser import Denoise
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import PCM
from policy.sampling.switching import Switch, SwitchingSchedule, feature_space, parameter_space

MERGED_COPIES = 8
"""Largest number of merged copies of a network. For further λ the adapters are evaluated beside the weights."""


def merged_networks(pcm: PCM, switching: SwitchingSchedule, space: str) -> Mapping[float, ConditionalUnet1D]:
    """λ → the PCM as a plain network, which costs no more than the base, for the λ of a schedule.

    Args:
        pcm: PCM to merge.
        switching: schedule of λ.
        space: ``feature`` needs the PCM at weight 1 only.
    """
    weights = [1.0]
    if space == "parameter":
        used = (switching.start, *switching.iterations, *switching.warm_iterations)
        weights = [weight for weight in used if weight > 0]
    return {weight: pcm.merged(weight) for weight in [*dict.fromkeys(weights)][:MERGED_COPIES]}


def bind_switch(
    base: ConditionalUnet1D,
    pcm: PCM,
    merged: Mapping[float, ConditionalUnet1D],
    *,
    space: str,
    bind: Callable[[ConditionalUnet1D], Denoise],
) -> Switch:
    """The switch from λ to the data prediction of base and PCM together.

    Args:
        base: network that the PCM was trained from.
        pcm: PCM trained from it.
        merged: networks from `merged_networks`.
        space: ``feature`` or ``parameter``.
        bind: network → its data prediction for the condition at hand.
    """
    denoisers = {weight: bind(network) for weight, network in merged.items()}
    if space == "feature":
        return feature_space(bind(base), denoisers[1.0])
    return parameter_space(bind(base), merged=denoisers, adapted=bind(pcm.network), network=pcm.network)
