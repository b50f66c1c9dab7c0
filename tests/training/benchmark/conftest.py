"""A tiny policy with a covariance, a PCM of it, and the arguments that benchmark both in a moment, or are refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from policy import DiffusionPolicy
from policy.networks.lora import ALL_LAYERS, add_lora
from policy.pcm import PCM, save_pcm, weights_sha256
from training.benchmark.run import main


@pytest.fixture
def policy_with_covariance(policy: DiffusionPolicy) -> DiffusionPolicy:
    return replace(policy, covariance=0.1 * torch.eye(32))


@pytest.fixture
def benchmark_arguments(
    policy_with_covariance: DiffusionPolicy, small_demonstrations: Path, tmp_path: Path
) -> list[str]:
    policy_with_covariance.save(tmp_path / "policy.safetensors")
    return [
        f"checkpoint={tmp_path}/policy.safetensors",
        f"demonstrations={small_demonstrations}",
        f"output_dir={tmp_path}/out",
        "observations=2",
        "held_out_episodes=1",
        "engine=plain",
    ]


@pytest.fixture
def squeeze() -> Callable[[str], str]:
    """(page) → it without the spaces that align its tables."""
    return lambda page: re.sub(r"-{3,}", "---", re.sub(" +", " ", page))


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """(arguments) → the line in which the command says why it refuses them."""

    def refuse(*arguments: str) -> str:
        assert main(arguments) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        return error

    return refuse


@pytest.fixture
def pcm_path(policy: DiffusionPolicy, tmp_path: Path) -> Path:
    """Adapters that change the answers, trained (so they say) for T = 5, drift, fresh noise and K = 2."""
    network = copy.deepcopy(policy.network)
    add_lora(network, rank=2, targets=ALL_LAYERS, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if name.endswith("up.weight"):
                weights.fill_(0.01)
    path = tmp_path / "adapters.safetensors"
    pcm = PCM(
        network,
        weights="lora",
        base_sha256=weights_sha256(policy.network),
        solver="ddim",
        steps=5,
        jacobian="drift",
        start="fresh",
        iterations=2,
        rank=2,
        targets=ALL_LAYERS,
    )
    save_pcm(path, pcm)
    return path
