"""The covariances Σ that the report `ablations` preconditions Picard iteration with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from policy import DiffusionPolicy
from training.data.demonstrations import Demonstrations
from training.data.features import with_features
from training.data.windows import Windows, policy_windows, split_episodes


def covariances(
    policy: DiffusionPolicy,
    demonstrations: Demonstrations,
    *,
    held_out_episodes: int,
    isotropic: Sequence[float],
) -> Mapping[str, Tensor]:
    """(D, D) covariances of normalised, flattened action sequences, by what they are called.

    Args:
        policy: with the covariance of its own samples.
        demonstrations: to take others from.
        held_out_episodes: of them, which are not used.
        isotropic: standard deviations.

    Raises:
        ValueError: if the policy has no covariance.
    """
    if policy.covariance is None:
        raise ValueError("the checkpoint has no covariance; add it with pcm-estimate-covariance")
    episodes, _ = split_episodes(len(demonstrations.episode_ends), held_out_episodes, seed=0)
    windows = policy_windows(with_features(demonstrations, policy), episodes, policy.config)
    normalizer = policy.normalizer.to("cpu")
    normalized = Windows(
        observations=normalizer.normalize_rows(windows.observations),
        actions=normalizer.action.normalize(windows.actions),
        steps=windows.steps,
    )
    covariance = policy.covariance
    found = {
        "of samples": covariance,
        "of samples, diagonal": torch.diag(covariance.diagonal()),
        **{f"isotropic, s = {s:g}": s**2 * torch.eye(len(covariance)) for s in isotropic},
        "of demonstrations": marginal_covariance(normalized),
        "of demonstrations, given the observation": conditional_covariance(normalized),
    }
    return {name: value.to(covariance) for name, value in found.items()}


def marginal_covariance(windows: Windows) -> Tensor:
    """(D, D), whatever the observation."""
    return torch.cov(windows.actions.flatten(1).double().T).float()


def conditional_covariance(windows: Windows) -> Tensor:
    """(D, D), given the observation, were both together Gaussian: that of the residuals of a linear regression."""
    observations, actions = windows.observations.flatten(1).double(), windows.actions.flatten(1).double()
    inputs = torch.cat((observations, observations.new_ones(len(observations), 1)), 1)
    # Observations of an episode's first steps repeat themselves, so that the inputs need not be independent.
    solution = torch.linalg.lstsq(inputs, actions, driver="gelsd")
    residuals = actions - inputs @ solution.solution
    return (residuals.T @ residuals / (len(residuals) - int(solution.rank))).float()
