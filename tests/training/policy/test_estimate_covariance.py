from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policy import CheckpointError, DiffusionPolicy, SamplerConfig
from training.policy.estimate_covariance import action_covariance, main


def test_covariance_is_the_mean_of_each_observations_covariance(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    fast = policy.with_sampler(SamplerConfig("sequential", "ddim", 4))
    covariance = action_covariance(fast, observations, samples=5, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((15, 16, 2), generator=generator)
    actions = fast.predict(observations.repeat_interleave(5, 0), noise=noise).actions
    normalized = fast.normalizer.action.normalize(actions).flatten(1).numpy().reshape(3, 5, 32)
    expected = np.mean([np.cov(samples, rowvar=False) for samples in normalized], axis=0)
    np.testing.assert_allclose(covariance.numpy(), expected, atol=1e-5)


def test_command_adds_the_covariance_and_keeps_the_rest(
    policy: DiffusionPolicy, small_demonstrations: Path, observations: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "policy.safetensors"
    policy.save(path)
    arguments = [f"checkpoint={path}", f"demonstrations={small_demonstrations}", f"output={path}"]
    assert main([*arguments, "observations=4", "samples=3", "steps=2"]) == 0
    loaded = DiffusionPolicy.load(path)
    assert loaded.covariance is not None
    assert loaded.covariance.shape == (32, 32)
    assert loaded.provenance["seed"] == 0
    assert "data_sha256" in loaded.provenance["covariance"]
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        loaded.predict_chunk(observations, noise=noise), policy.predict_chunk(observations, noise=noise)
    )
    picard = loaded.with_sampler(SamplerConfig("picard", "ddim", 10))
    expected = loaded.with_sampler(SamplerConfig("sequential", "ddim", 10)).predict_chunk(
        observations, noise=noise
    )
    torch.testing.assert_close(
        picard.predict_chunk(observations, noise=noise), expected, atol=0.01, rtol=0
    )  # px


def test_checkpoint_without_covariance_says_what_it_lacks(policy: DiffusionPolicy, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the covariance of the policy's actions"):
        policy.with_sampler(SamplerConfig("picard", "ddim", 10))
    replace(policy, covariance=torch.eye(3)).save(tmp_path / "policy.safetensors")
    with pytest.raises(CheckpointError, match=r"action_covariance has shape \(3, 3\), need \(32, 32\)"):
        DiffusionPolicy.load(tmp_path / "policy.safetensors")
