"""Add the covariance of the policy's own actions to a checkpoint.

The Jacobian `preconditioned` and the start `gaussian` need it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from omegaconf import MISSING
from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig
from training.command import run_command
from training.data.demonstrations import load_demonstrations
from training.data.features import with_features
from training.data.windows import policy_windows
from training.distributed import choose_device
from training.provenance import code_version, command_line

MOST_PREDICTIONS = 1_000_000  # they are made at once: what is beyond does not fit into a memory


@dataclass(frozen=True)
class EstimateCovarianceConfig:
    """See `training/conf/estimate_covariance.yaml`."""

    checkpoint: str = MISSING
    demonstrations: str = MISSING
    output: str = MISSING
    task: str | None = None
    observations: int = 96
    samples: int = 16
    steps: int = 10
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.observations < 1:
            raise ValueError(f"observations must be at least 1, got {self.observations}")
        if self.samples < 2:
            raise ValueError(f"samples must be at least 2 for a covariance, got {self.samples}")
        if self.observations * self.samples > MOST_PREDICTIONS:
            raise ValueError(
                f"observations × samples must be at most {MOST_PREDICTIONS}, "
                f"got {self.observations} × {self.samples}"
            )


def action_covariance(
    policy: DiffusionPolicy, observations: Tensor, *, samples: int, generator: torch.Generator
) -> Tensor:
    """Covariance of the normalised, flattened action sequences given the observation, averaged over observations.

    Args:
        policy: policy to draw from, with its own sampler.
        observations: (N, observation_steps, observation_dim) in the task's units.
        samples: number of action sequences for each observation.
        generator: source of the noises.

    Returns:
        (D, D), D = horizon × action dimension, unbiased.
    """
    actions = policy.predict(observations.repeat_interleave(samples, 0), generator=generator).actions
    normalized = policy.normalizer.action.normalize(actions).view(len(observations), samples, -1).double()
    deviations = (normalized - normalized.mean(1, keepdim=True)).flatten(0, 1)
    return (deviations.T @ deviations / (len(observations) * (samples - 1))).float()


def estimate_covariance(config: EstimateCovarianceConfig) -> None:
    """Write the checkpoint again, with the covariance in it."""
    policy = DiffusionPolicy.load(
        config.checkpoint, choose_device(config.device), SamplerConfig("sequential", "ddim", config.steps)
    )
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, policy_task=policy.task)
    seen = with_features(demonstrations, policy)
    windows = policy_windows(seen, range(len(seen.episode_ends)), policy.config)
    generator = torch.Generator().manual_seed(config.seed)
    rows = torch.randperm(len(windows.observations), generator=generator)[: config.observations]
    covariance = action_covariance(
        policy, windows.observations[rows], samples=config.samples, generator=generator
    )
    provenance = {
        **policy.provenance,
        "covariance": {
            "data_sha256": demonstrations.sha256,
            "code": code_version(),
            "command": command_line(),
            "seed": config.seed,
        },
    }
    replace(policy, covariance=covariance, provenance=provenance).save(config.output)
    spread = torch.linalg.eigvalsh(covariance).clamp(min=0).sqrt()
    print(f"standard deviations along the principal axes: {spread.max():.4f} … {spread.min():.4f}")
    print(f"checkpoint with covariance: {config.output}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("estimate_covariance", EstimateCovarianceConfig, estimate_covariance, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
