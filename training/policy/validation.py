"""What is measured of a policy while it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policy import DiffusionPolicy, SamplerConfig, Task
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.rollout import run_episodes
from training.policy.noise_prediction import TrainingData
from training.pusht.task import difference_from_pusht, is_pusht_seen
from training.training_loop import generator_for

COLUMNS = ["held_out_loss", "rollout_reward"]
ROLLOUT_EPISODES = 10  # where there is an environment


@dataclass(frozen=True)
class RolloutOptions:
    """Episodes in the task's environment; none: `episodes` is 0."""

    episodes: int
    max_steps: int
    first_seed: int
    sampler: SamplerConfig
    environment: EnvironmentConfig


def rollout_episodes(task: Task, chosen: int | None, environment: EnvironmentConfig) -> int:
    """The number of episodes to run: as chosen, or else as many as are usual where there is an environment.

    Raises:
        ValueError: for episodes without an environment, or in one that does not fit the task.
    """
    if chosen is None:
        has_own = is_pusht_seen(task) or not difference_from_pusht(task)
        chosen = 0 if environment.id is None and not has_own else ROLLOUT_EPISODES
    if chosen:
        Environment(environment, task).close()  # fails now, not at the first validation
    return chosen


def validate(
    policy: DiffusionPolicy,
    held_out: TrainingData,
    *,
    loss: Callable[..., Tensor],
    seed: int,
    rollouts: RolloutOptions,
) -> dict[str, float]:
    """Numbers for the log, by their columns.

    Args:
        policy: with the averaged weights.
        held_out: windows that are not trained on; may be none.
        loss: see `held_out_loss`.
        seed: of timesteps and noises.
        rollouts: episodes to run.
    """
    numbers = {}
    if len(held_out.actions):
        numbers["held_out_loss"] = held_out_loss(policy.network, held_out, loss=loss, seed=seed)
    if rollouts.episodes:
        seeds = range(rollouts.first_seed, rollouts.first_seed + rollouts.episodes)
        rollout = run_episodes(
            policy.with_sampler(rollouts.sampler),
            seeds,
            rollouts.max_steps,
            show_progress=False,
            environment=rollouts.environment,
        )
        rewards = [episode.max_reward for episode in rollout.episodes]
        numbers["rollout_reward"] = sum(rewards) / len(rewards)
    return numbers


@torch.no_grad()
def held_out_loss(
    network: nn.Module, held_out: TrainingData, *, loss: Callable[..., Tensor], seed: int
) -> float:
    """The loss of the training on other windows, with the same timesteps and noises at each validation.

    Args:
        loss: (network, windows, rows, generator, share) → mean loss.
    """
    device = held_out.actions.device
    return loss(
        network,
        held_out,
        torch.arange(len(held_out.actions), device=device),
        generator=generator_for(seed, 0, device),
        share=slice(None),
    ).item()
