"""Train a diffusion policy on demonstrations: the noise-prediction loss of DDPM (Ho et al. 2020, eq. 14)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range, SamplerConfig
from policy.networks.unet import ConditionalUnet1D
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from training.command import named_as_written, run_command
from training.data.augmentation import AUGMENTATIONS, mirrored
from training.data.demonstrations import load_demonstrations
from training.data.windows import Windows, join_windows, policy_windows, split_episodes
from training.distributed import Worker, worker
from training.evaluation.offline.store import HELD_OUT
from training.evaluation.offline.validation import FILES, HeldOutEpisodes
from training.evaluation.rollout import run_episodes
from training.output_dir import check_output_dir
from training.provenance import code_version, command_line, machine
from training.training_loop import TrainingConfig, batch_rows, generator_for, train, training_outputs

OUTPUTS = training_outputs("pcm-train-policy", "policy.safetensors", *FILES)
MOST_EPISODES = 100_000  # and control steps of one: what is beyond is a slip, and would never end


@dataclass(frozen=True)
class TrainPolicyConfig:
    """See `training/conf/train_policy.yaml`."""

    demonstrations: str = MISSING
    output_dir: str = MISSING
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    held_out_episodes: int = 6
    held_out_sampler: SamplerConfig = field(default_factory=SamplerConfig)
    augmentation: str = "none"
    rollout_episodes: int = 10
    rollout_max_steps: int = 200
    rollout_first_seed: int = 200000
    rollout_sampler: SamplerConfig = field(default_factory=SamplerConfig)
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.rollout_episodes < 0:
            raise ValueError(f"rollout_episodes must not be negative, got {self.rollout_episodes}")
        if self.rollout_max_steps < 1:
            raise ValueError(f"rollout_max_steps must be at least 1, got {self.rollout_max_steps}")
        for name in ("rollout_episodes", "rollout_max_steps"):
            if getattr(self, name) > MOST_EPISODES:
                raise ValueError(f"{name} must be at most {MOST_EPISODES}, got {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise ValueError(
                f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {self.augmentation!r}"
            )


@dataclass(frozen=True)
class TrainingData:
    """Normalised windows on a device: condition (W, C) and actions (W, H, A)."""

    condition: Tensor
    actions: Tensor

    @classmethod
    def of(cls, windows: Windows, normalizer: Normalizer, device: torch.device) -> TrainingData:
        condition = normalizer.observation.normalize(windows.observations).flatten(1)
        return cls(condition.to(device), normalizer.action.normalize(windows.actions).to(device))


def noise_prediction_loss(
    network: nn.Module,
    data: TrainingData,
    rows: Tensor,
    *,
    alphas_cumprod: Tensor,
    generator: torch.Generator,
    share: slice,
) -> Tensor:
    """Mean of ‖ε − ε_θ(√ᾱ_t·x + √(1−ᾱ_t)·ε, t, condition)‖² over this worker's share of the rows (B,).

    Timesteps and noises are drawn for all rows: the share only decides which worker computes which rows.
    """
    timesteps = torch.randint(len(alphas_cumprod), rows.shape, generator=generator, device=generator.device)
    noise = torch.randn((len(rows), *data.actions.shape[1:]), generator=generator, device=generator.device)
    rows, timesteps, noise = rows[share], timesteps[share], noise[share]
    alpha = alphas_cumprod[timesteps, None, None]
    noisy = alpha.sqrt() * data.actions[rows] + (1 - alpha).sqrt() * noise
    prediction = network(noisy, timesteps, data.condition[rows])
    return nn.functional.mse_loss(prediction.float(), noise)


def train_policy(config: TrainPolicyConfig) -> None:
    """Train a policy and write `policy.safetensors` with its averaged weights into the output directory."""
    with worker(config.device) as this_worker:
        _train(config, this_worker)


def _train(config: TrainPolicyConfig, this_worker: Worker) -> None:
    device, training = this_worker.device, config.training
    output_dir = Path(config.output_dir)
    if this_worker.is_first:  # fails now, not after the demonstrations are read
        check_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite)
    demonstrations = load_demonstrations(config.demonstrations)
    for name in ("observation", "action"):
        need = getattr(demonstrations, f"{name}s").shape[1]
        if (found := getattr(config.policy, f"{name}_dim")) != need:
            raise ValueError(f"policy.{name}_dim must be {need}, as in {config.demonstrations}, got {found}")
    train_episodes, held_out = split_episodes(
        len(demonstrations.episode_ends), config.held_out_episodes, training.seed
    )
    recorded = [demonstrations]
    if config.augmentation == "mirror":
        recorded.append(mirrored(demonstrations))
    windows = join_windows([policy_windows(each, train_episodes, config.policy) for each in recorded])
    if len(windows.actions) < training.batch_size:
        raise ValueError(
            f"batch_size {training.batch_size} exceeds the {len(windows.actions)} training windows"
        )
    normalizer = Normalizer(
        Range.of(torch.cat([torch.from_numpy(each.observations) for each in recorded])),
        Range.of(torch.cat([torch.from_numpy(each.actions) for each in recorded])),
    )
    data = TrainingData.of(windows, normalizer, device)
    held_out_data = TrainingData.of(
        policy_windows(demonstrations, held_out, config.policy), normalizer, device
    )
    judged = None
    if config.held_out_episodes:
        judged = HeldOutEpisodes.of(demonstrations, held_out, config.policy)
    alphas_cumprod = squared_cosine_alphas_cumprod(config.policy.num_train_timesteps).float().to(device)

    torch.manual_seed(training.seed)  # PyTorch initialises modules from its global generator only
    network = config.policy.build_network().to(device)
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

    def loss(trained: nn.Module, step: int) -> Tensor:
        rows = batch_rows(len(data.actions), training.batch_size, seed=training.seed, step=step).to(device)
        generator = generator_for(training.seed, step, device)
        return noise_prediction_loss(
            trained, data, rows, alphas_cumprod=alphas_cumprod, generator=generator, share=share
        )

    def finished_policy(weights: nn.Module, step: int) -> DiffusionPolicy:
        assert isinstance(weights, ConditionalUnet1D)
        return DiffusionPolicy(
            weights, config.policy, normalizer.to(device), {**provenance, "training_steps": step}
        )

    def validate(weights: nn.Module, step: int) -> dict[str, float]:
        policy = finished_policy(weights, step)
        policy.save(output_dir / "policy.safetensors")
        numbers = {}
        if judged is not None:
            numbers |= judged.errors(policy.with_sampler(config.held_out_sampler))
            rows = torch.arange(len(held_out_data.actions), device=device)
            generator = generator_for(training.seed, 0, device)
            with torch.no_grad():
                numbers["held_out_loss"] = noise_prediction_loss(
                    weights,
                    held_out_data,
                    rows,
                    alphas_cumprod=alphas_cumprod,
                    generator=generator,
                    share=slice(None),
                ).item()
        if config.rollout_episodes:
            seeds = range(config.rollout_first_seed, config.rollout_first_seed + config.rollout_episodes)
            rollout = run_episodes(
                policy.with_sampler(config.rollout_sampler),
                seeds,
                config.rollout_max_steps,
                show_progress=False,
            )
            rewards = [episode.max_reward for episode in rollout.episodes]
            numbers["rollout_reward"] = sum(rewards) / len(rewards)
        return numbers

    identity = {
        "data_sha256": demonstrations.sha256,
        "policy": asdict(config.policy),
        "held_out_episodes": config.held_out_episodes,
        "augmentation": config.augmentation,
    }
    columns = ["held_out_loss", "rollout_reward", *(judged.columns if judged is not None else [])]
    for name in ("held_out_sampler", "rollout_sampler"):
        with named_as_written(name):  # fails now, not at the first validation
            finished_policy(averaged, 0).with_sampler(getattr(config, name))
    train(
        network,
        averaged,
        loss,
        validate=validate,
        validation_columns=columns,
        config=training,
        worker=this_worker,
        output_dir=output_dir,
        outputs=OUTPUTS,
        overwrite=config.overwrite,
        identity=identity,
    )
    if this_worker.is_first:
        path = output_dir / "policy.safetensors"
        if not path.exists():  # an earlier run wrote it, and it was removed
            finished_policy(averaged, training.steps).save(path)
        if judged is not None:
            policy = finished_policy(averaged.eval(), training.steps)
            print(judged.report(policy.with_sampler(config.held_out_sampler), output_dir))
        print(f"policy: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train_policy", TrainPolicyConfig, train_policy, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
