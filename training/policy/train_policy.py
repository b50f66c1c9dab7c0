"""Train a diffusion policy on demonstrations of any task."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
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
from policy.objective import NOISE
from policy.pcm import weights_sha256
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
from training.policy.noise_prediction import TrainingData
from training.policy.objectives import check_objective, load_like, validation_sampler, window_loss
from training.policy.seeing import (
    PictureBatches,
    ReadPictures,
    showing,
    trained_network,
    unet_and_encoders,
)
from training.policy.validation import COLUMNS, RolloutOptions, rollout_episodes
from training.policy.validation import validate as validate_policy
from training.provenance import code_version, command_line, machine
from training.pusht.augmentation import WithMirrorImages, load_states, mirrored, mirrored_as_seen
from training.pusht.task import is_pusht_seen
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
    objective: str = NOISE
    teacher: str | None = None
    initial: str | None = None
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
        check_objective(self.objective, self.teacher)
        if self.initial is not None and self.teacher is not None:
            raise ValueError("initial: a student begins with its teacher's weights")
        if self.initial is not None and (self.image_encoder_weights is not None or self.normalization):
            raise ValueError(
                "initial brings its own normalization and image_encoder_weights, which were given"
            )
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
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, pictures_folder=output_dir)
    task = demonstrations.task
    held_out_sampler = validation_sampler(config.objective, config.held_out_sampler)
    rollouts = RolloutOptions(
        rollout_episodes(task, config.rollout_episodes, config.environment),
        config.rollout_max_steps,
        config.rollout_first_seed,
        sampler=validation_sampler(config.objective, config.rollout_sampler),
        environment=config.environment,
    )
    train_episodes, held_out = split_episodes(
        len(demonstrations.episode_ends), config.held_out_episodes, training.seed
    )
    if config.teacher is not None and task.images:
        raise ValueError(
            f"teacher: a policy that sees cannot be distilled yet, task {task.name!r} has pictures"
        )
    recorded = _recorded(config, demonstrations)
    windows = join_windows(
        [policy_windows(each, train_episodes, config.policy) for each in recorded],
        num_steps=len(demonstrations.actions),
    )
    if len(windows.actions) < training.batch_size:
        raise ValueError(
            f"batch_size {training.batch_size} exceeds the {len(windows.actions)} training windows"
        )
    fitted = fit_normalizer(
        task,
        torch.cat([torch.from_numpy(each.observations) for each in recorded]),
        torch.cat([torch.from_numpy(each.actions) for each in recorded]),
        scaling=config.normalization,
    )
    teacher, begun, normalizer = None, None, fitted
    if config.teacher is not None:
        teacher = begun = load_like(
            config.teacher, task, config.policy, objective=NOISE, role="teacher", device=device
        )
        normalizer = teacher.normalizer
    if config.initial is not None:
        begun = load_like(
            config.initial,
            task,
            config.policy,
            objective=config.objective,
            role="initial policy",
            device=device,
        )
        normalizer = begun.normalizer.widened(fitted.to(device))
    data = TrainingData.of(windows, normalizer, device)
    judged = None
    if config.held_out_episodes:
        judged = HeldOutEpisodes.of(demonstrations, held_out, config.policy)
    alphas_cumprod = squared_cosine_alphas_cumprod(config.policy.num_train_timesteps).float().to(device)

    torch.manual_seed(training.seed)  # PyTorch initialises modules from its global generator only
    network = trained_network(config.policy, task, config.image_encoder_weights).to(device)
    if begun is not None:
        for trained, weights in zip(unet_and_encoders(network), (begun.network, begun.encoders), strict=True):
            if trained is not None and weights is not None:
                trained.load_state_dict(weights.state_dict())
    averaged = deepcopy(network).requires_grad_(False)
    loss_of = window_loss(config.objective, alphas_cumprod, teacher=teacher, target=averaged)
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
        pictures: Mapping[str, ReadPictures] = demonstrations.pictures
        if config.augmentation == "mirror":
            pictures = {name: WithMirrorImages(each) for name, each in demonstrations.pictures.items()}
        batches = PictureBatches(pictures, lambda step: shown[rows_of(step)[share]].numpy(), device)

    def loss(trained: nn.Module, step: int) -> Tensor:
        generator = generator_for(training.seed, step, device)
        predict: Callable[..., Tensor] = trained
        if batches is not None:
            predict = showing(
                trained,
                batches.batch(step),
                generator=generator,
                batch_size=training.batch_size,
                share=share,
            )
        return loss_of(predict, data, rows_of(step).to(device), generator=generator, share=share)

    def finished_policy(weights: nn.Module, step: int) -> DiffusionPolicy:
        unet, encoders = unet_and_encoders(weights)
        return DiffusionPolicy(
            unet,
            task,
            config.policy,
            normalizer.to(device),
            provenance={**provenance, "training_steps": step},
            objective=config.objective,
            encoders=encoders,
        )

    def validate(weights: nn.Module, step: int) -> dict[str, float]:
        policy = finished_policy(weights, step)
        policy.save(output_dir / "policy.safetensors")
        seen = None if judged is None else judged.seen_by(policy)
        shown = demonstrations if seen is None else seen.demonstrations
        held_out_data = TrainingData.of(policy_windows(shown, held_out, config.policy), normalizer, device)
        numbers = validate_policy(policy, held_out_data, loss=loss_of, seed=training.seed, rollouts=rollouts)
        if seen is not None:
            numbers |= seen.errors(policy.with_sampler(held_out_sampler))
        return numbers

    identity = {
        "data_sha256": demonstrations.sha256,
        "task": task_values(task),
        "policy": config_values(task, config.policy),
        "held_out_episodes": config.held_out_episodes,
        "augmentation": config.augmentation,
        "normalization": dict(config.normalization),
    }
    if config.objective != NOISE:  # a state without it was trained on noise
        identity["objective"] = config.objective
    if teacher is not None:
        identity["teacher_sha256"] = provenance["teacher_sha256"] = weights_sha256(teacher.network)
    if config.initial is not None:
        identity["initial_sha256"] = provenance["initial_sha256"] = file_sha256(config.initial)
    if config.image_encoder_weights is not None:
        identity["image_encoder_weights"] = file_sha256(config.image_encoder_weights)
    for name, sampler in (("held_out_sampler", held_out_sampler), ("rollout_sampler", rollouts.sampler)):
        with named_as_written(name):  # fails now, not at the first validation
            finished_policy(averaged, 0).with_sampler(sampler)
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
            print(judged.seen_by(policy).report(policy.with_sampler(held_out_sampler), output_dir))
        print(f"policy: {path}")


def _recorded(config: TrainPolicyConfig, demonstrations: Demonstrations) -> list[Demonstrations]:
    """The demonstrations, and what the augmentation makes of them."""
    if config.augmentation == "none":
        return [demonstrations]
    if is_pusht_seen(demonstrations.task):
        return [demonstrations, mirrored_as_seen(demonstrations)]
    states = load_states(config.demonstrations, demonstrations)
    return [demonstrations, mirrored(demonstrations, states)]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train_policy", TrainPolicyConfig, train_policy, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
