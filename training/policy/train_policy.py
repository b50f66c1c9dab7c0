"""Train a diffusion policy on demonstrations of any task."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from policy import DiffusionPolicy, PolicyConfig, SamplerConfig
from policy.checkpoint import file_sha256
from policy.config import config_values
from policy.normalizer import fit_normalizer
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from policy.task import task_values
from training.command import named_as_written, run_command
from training.data.demonstrations import Demonstrations, load_demonstrations
from training.data.windows import join_windows, policy_windows, split_episodes
from training.distributed import Worker, worker
from training.evaluation.environment import EnvironmentConfig
from training.evaluation.offline.store import HELD_OUT
from training.evaluation.offline.validation import FILES, HeldOutEpisodes
from training.output_dir import check_output_dir
from training.policy.noise_prediction import TrainingData, noise_prediction_loss
from training.policy.seeing import PictureBatches, trained_network, unet_and_encoders
from training.policy.validation import COLUMNS, RolloutOptions, rollout_episodes
from training.policy.validation import validate as validate_policy
from training.provenance import code_version, command_line, machine
from training.pusht.augmentation import load_states, mirrored
from training.training_loop import TrainingConfig, batch_rows, generator_for, train, training_outputs

AUGMENTATIONS = ("none", "mirror")
OUTPUTS = training_outputs("pcm-train-policy", "policy.safetensors", *FILES)
MOST_EPISODES = 100_000  # and control steps of one: what is beyond is a slip, and would never end


@dataclass(frozen=True)
class TrainPolicyConfig:
    """See `training/conf/train_policy.yaml`."""

    demonstrations: str = MISSING
    output_dir: str = MISSING
    task: str | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    held_out_episodes: int = 6
    held_out_sampler: SamplerConfig = field(default_factory=SamplerConfig)
    augmentation: str = "none"
    normalization: dict[str, str] = field(default_factory=dict)
    image_encoder_weights: str | None = None
    rollout_episodes: int | None = None
    rollout_max_steps: int = 200
    rollout_first_seed: int = 200000
    rollout_sampler: SamplerConfig = field(default_factory=SamplerConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.rollout_episodes is not None and self.rollout_episodes < 0:
            raise ValueError(f"rollout_episodes must not be negative, got {self.rollout_episodes}")
        if self.rollout_max_steps < 1:
            raise ValueError(f"rollout_max_steps must be at least 1, got {self.rollout_max_steps}")
        for name in ("rollout_episodes", "rollout_max_steps"):
            if (getattr(self, name) or 0) > MOST_EPISODES:
                raise ValueError(f"{name} must be at most {MOST_EPISODES}, got {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {self.augmentation!r}"
            )


def train_policy(config: TrainPolicyConfig) -> None:
    """Train a policy and write `policy.safetensors` with its averaged weights into the output directory."""
    with worker(config.device) as this_worker:
        _train(config, this_worker)


def _train(config: TrainPolicyConfig, this_worker: Worker) -> None:
    device, training = this_worker.device, config.training
    output_dir = Path(config.output_dir)
    if this_worker.is_first:  # fails now, not after the demonstrations are read
        check_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite)
    output_dir.mkdir(parents=True, exist_ok=True)
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, pictures_folder=output_dir)
    task = demonstrations.task
    rollouts = RolloutOptions(
        rollout_episodes(task, config.rollout_episodes, config.environment),
        config.rollout_max_steps,
        config.rollout_first_seed,
        sampler=config.rollout_sampler,
        environment=config.environment,
    )
    train_episodes, held_out = split_episodes(
        len(demonstrations.episode_ends), config.held_out_episodes, training.seed
    )
    recorded = _recorded(config, demonstrations)
    windows = join_windows([policy_windows(each, train_episodes, config.policy) for each in recorded])
    if len(windows.actions) < training.batch_size:
        raise ValueError(
            f"batch_size {training.batch_size} exceeds the {len(windows.actions)} training windows"
        )
    normalizer = fit_normalizer(
        task,
        torch.cat([torch.from_numpy(each.observations) for each in recorded]),
        torch.cat([torch.from_numpy(each.actions) for each in recorded]),
        scaling=config.normalization,
    )
    data = TrainingData.of(windows, normalizer, device)
    judged = None
    if config.held_out_episodes:
        judged = HeldOutEpisodes.of(demonstrations, held_out, config.policy)
    alphas_cumprod = squared_cosine_alphas_cumprod(config.policy.num_train_timesteps).float().to(device)

    torch.manual_seed(training.seed)  # PyTorch initialises modules from its global generator only
    network = trained_network(config.policy, task, config.image_encoder_weights).to(device)
    averaged = deepcopy(network).requires_grad_(False)
    share = this_worker.share(training.batch_size)
    provenance = {
        "data_sha256": demonstrations.sha256,
        HELD_OUT: held_out.tolist(),
        "code": code_version(),
        "command": command_line(),
        "seed": training.seed,
        "batch_size": training.batch_size,
        "machine": machine(device),
    }

    def rows_of(step: int) -> Tensor:
        return batch_rows(len(data.actions), training.batch_size, seed=training.seed, step=step)

    batches = None
    if task.images:
        shown = windows.steps
        batches = PictureBatches(
            demonstrations.pictures, lambda step: shown[rows_of(step)[share]].numpy(), device
        )

    def loss(trained: nn.Module, step: int) -> Tensor:
        return noise_prediction_loss(
            trained,
            data,
            rows_of(step).to(device),
            alphas_cumprod=alphas_cumprod,
            generator=generator_for(training.seed, step, device),
            share=share,
            pictures=None if batches is None else batches.batch(step),
        )

    def finished_policy(weights: nn.Module, step: int) -> DiffusionPolicy:
        unet, encoders = unet_and_encoders(weights)
        return DiffusionPolicy(
            unet,
            task,
            config.policy,
            normalizer.to(device),
            provenance={**provenance, "training_steps": step},
            encoders=encoders,
        )

    def validate(weights: nn.Module, step: int) -> dict[str, float]:
        policy = finished_policy(weights, step)
        policy.save(output_dir / "policy.safetensors")
        seen = None if judged is None else judged.seen_by(policy)
        shown = demonstrations if seen is None else seen.demonstrations
        held_out_data = TrainingData.of(policy_windows(shown, held_out, config.policy), normalizer, device)
        numbers = validate_policy(
            policy, held_out_data, alphas_cumprod=alphas_cumprod, seed=training.seed, rollouts=rollouts
        )
        if seen is not None:
            numbers |= seen.errors(policy.with_sampler(config.held_out_sampler))
        return numbers

    identity = {
        "data_sha256": demonstrations.sha256,
        "task": task_values(task),
        "policy": config_values(task, config.policy),
        "held_out_episodes": config.held_out_episodes,
        "augmentation": config.augmentation,
        "normalization": dict(config.normalization),
    }
    if config.image_encoder_weights is not None:
        identity["image_encoder_weights"] = file_sha256(config.image_encoder_weights)
    for name in ("held_out_sampler", "rollout_sampler"):
        with named_as_written(name):  # fails now, not at the first validation
            finished_policy(averaged, 0).with_sampler(getattr(config, name))
    train(
        network,
        averaged,
        loss,
        validate=validate,
        validation_columns=[*COLUMNS, *(judged.columns if judged is not None else [])],
        config=training,
        worker=this_worker,
        output_dir=output_dir,
        outputs=OUTPUTS,
        overwrite=config.overwrite,
        identity=identity,
        measured={} if batches is None else {"data_wait": batches.share_waited},
    )
    if batches is not None:
        batches.close()
    if this_worker.is_first:
        path = output_dir / "policy.safetensors"
        if not path.exists():  # an earlier run wrote it, and it was removed
            finished_policy(averaged, training.steps).save(path)
        if judged is not None:
            policy = finished_policy(averaged.eval(), training.steps)
            sampled = policy.with_sampler(config.held_out_sampler)
            print(judged.seen_by(policy).report(sampled, output_dir))
        print(f"policy: {path}")


def _recorded(config: TrainPolicyConfig, demonstrations: Demonstrations) -> list[Demonstrations]:
    """The demonstrations, and what the augmentation makes of them."""
    if config.augmentation == "none":
        return [demonstrations]
    states = load_states(config.demonstrations, demonstrations)
    return [demonstrations, mirrored(demonstrations, states)]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train_policy", TrainPolicyConfig, train_policy, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
