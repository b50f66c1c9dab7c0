"""The networks of a PCM at the weights λ that a sampler gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policy.denoiser import Denoise
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import PCM
from policy.sampling.switching import Switch, SwitchingSchedule, feature_space, parameter_space

MERGED_COPIES = (
    8  # of the network, that a PCM may take memory for; the adapters are evaluated at weights beyond them
)


def merged_networks(pcm: PCM, switching: SwitchingSchedule, space: str) -> Mapping[float, ConditionalUnet1D]:
    """The PCM as plain networks, which cost no more than the base, at the weights of the schedule.

    Args:
        pcm: whose adapters are merged.
        switching: its weights.
        space: ``feature`` needs the PCM at weight 1 only.
    """
    weights = [1.0]
    if space == "parameter":
        weights = [weight for weight in (switching.start, *switching.iterations) if weight > 0]
    return {weight: pcm.merged(weight) for weight in [*dict.fromkeys(weights)][:MERGED_COPIES]}


def bind_switch(
    base: ConditionalUnet1D,
    pcm: PCM,
    merged: Mapping[float, ConditionalUnet1D],
    *,
    space: str,
    bind: Callable[[ConditionalUnet1D], Denoise],
) -> Switch:
    """The data predictions of base and PCM together, for the observations that `bind` binds a network to.

    Args:
        base: the network that the PCM was trained from.
        pcm: trained from it.
        merged: as of `merged_networks`.
        space: ``feature`` or ``parameter``.
        bind: network → its data prediction.
    """
    denoisers = {weight: bind(network) for weight, network in merged.items()}
    if space == "feature":
        return feature_space(bind(base), denoisers[1.0])
    return parameter_space(bind(base), merged=denoisers, adapted=bind(pcm.network), network=pcm.network)
