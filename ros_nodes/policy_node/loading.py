"""The policy that the node's parameters name: a file, or the address of a server that has one. Knows no ROS."""

from __future__ import annotations

from typing import TypeAlias

from policy import DiffusionPolicy, SamplerConfig
from policy.exported import ExportedPolicy
from policy.exported.remote import is_address, open_remote
from policy.normalizer import Range
from policy.pcm import load_pcm

LoadedPolicy: TypeAlias = DiffusionPolicy | ExportedPolicy
"""A policy from a file, whose sampler may change, or that of a server, which has one sampler."""


def load_policy(checkpoint: str, *, pcm: str, device: str, sampler: SamplerConfig) -> LoadedPolicy:
    """Load a policy.

    Args:
        checkpoint: file, or address of a server, which has a PCM, device and sampler of its own.
        pcm: file of a PCM of the checkpoint; empty for none.
        device: where the network runs.
        sampler: sampler.

    Raises:
        CheckpointError: for a file that is none.
        ServerError: for a server that does not answer.
        ValueError: if the policy cannot be sampled that way, or for an address that is none.
    """
    if is_address(checkpoint):
        return open_remote(checkpoint)
    policy = DiffusionPolicy.load(checkpoint, device)
    if pcm:
        policy = policy.with_pcm(load_pcm(pcm, policy.network))
    return policy.with_sampler(sampler)


def observed_range(policy: LoadedPolicy) -> Range:
    """What training saw of observations, on the CPU."""
    if isinstance(policy, ExportedPolicy):
        return policy.description.observed
    return policy.normalizer.observation.to("cpu")
