from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from policy import DiffusionPolicy
from policy.networks.lora import ALL_LAYERS, add_lora, lora_parameters
from policy.pcm import PCM, weights_sha256


def _make_pcm(policy: DiffusionPolicy, weights: str, **options: Any) -> PCM:
    """As if trained: every trained weight has moved."""
    network = copy.deepcopy(policy.network)
    generator = torch.Generator().manual_seed(3)
    trained = list(network.parameters())
    if weights == "lora":
        options |= {"rank": 2, "targets": ALL_LAYERS}
        add_lora(network, rank=2, targets=ALL_LAYERS, generator=generator)
        trained = lora_parameters(network)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    described = {"solver": "ddim", "steps": 6, "jacobian": "drift", "start": "fresh", "iterations": 3}
    base = weights_sha256(policy.network)
    return PCM(network, weights=weights, base_sha256=base, **(described | options), provenance={"seed": 3})


@pytest.fixture
def make_pcm() -> Callable[..., PCM]:
    """(policy, weights, other fields of a PCM) → a PCM of it."""
    return _make_pcm
