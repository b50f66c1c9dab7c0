"""The losses that a policy can be trained by, and how a policy in training is sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from policy import DiffusionPolicy, PolicyConfig, SamplerConfig, Task
from policy.objective import CONSISTENCY, MIP, NOISE, OBJECTIVES
from policy.task import task_values
from training.policy.consistency import consistency_loss
from training.policy.mip import mip_loss
from training.policy.noise_prediction import noise_prediction_loss


def check_objective(objective: str, teacher: str | None) -> None:
    """Refuse an objective that there is not, one without its teacher, or a teacher that nobody asks.

    Raises:
        ValueError: for these.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if objective == CONSISTENCY and teacher is None:
        raise ValueError("objective=consistency needs teacher=…, the checkpoint of the policy to distil")
    if objective != CONSISTENCY and teacher is not None:
        raise ValueError(f"teacher belongs to objective=consistency, not to {objective}")


def load_like(
    path: str, task: Task, config: PolicyConfig, *, objective: str, role: str, device: torch.device
) -> DiffusionPolicy:
    """A policy like the one to train: to distil, or to go on from.

    Args:
        objective: what it was trained for.
        role: what it is called in messages.

    Raises:
        CheckpointError: for a file that is none.
        ValueError: for a policy of another task, with other widths, or for another objective.
    """
    found = DiffusionPolicy.load(path, device)
    if found.objective != objective:
        raise ValueError(
            f"{path}: the {role} must be trained with objective={objective}, it is with {found.objective}"
        )
    if task_values(found.task) != task_values(task):
        raise ValueError(f"{path}: the {role}'s task is not that of the demonstrations")
    if found.config != config:
        differing = [name for name, value in vars(config).items() if getattr(found.config, name) != value]
        name = differing[0]
        raise ValueError(
            f"{path}: the {role} has policy.{name}={getattr(found.config, name)}, got {getattr(config, name)}"
        )
    return found


def window_loss(
    objective: str, alphas_cumprod: Tensor, *, teacher: DiffusionPolicy | None, target: nn.Module
) -> Callable[..., Tensor]:
    """(network, windows, rows, generator, share) → mean loss of the objective.

    Args:
        objective: one of `OBJECTIVES`.
        alphas_cumprod: ᾱ of the training timesteps.
        teacher: for ``consistency``.
        target: network with averaged weights, for ``consistency``.
    """
    if teacher is not None:
        return partial(
            consistency_loss, alphas_cumprod=alphas_cumprod, teacher=teacher.network, target=target
        )
    return partial({NOISE: noise_prediction_loss, MIP: mip_loss}[objective], alphas_cumprod=alphas_cumprod)


def validation_sampler(objective: str, sampler: SamplerConfig) -> SamplerConfig:
    """The sampler with what is usual while a policy is trained in place of what was left open: of diffusion DDIM-10."""
    if objective != NOISE:
        return sampler
    solver = "ddim" if sampler.solver == "auto" else sampler.solver
    return replace(sampler, solver=solver, steps=sampler.steps or 10)
