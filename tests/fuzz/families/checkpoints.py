"""Files of policies and of Picard Consistency Models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from policy import CheckpointError, DiffusionPolicy, Normalizer, PolicyConfig, Range, SamplerConfig
from policy.checkpoint import Checkpoint
from policy.image_encoder_config import ImageEncoderConfig
from policy.networks.lora import add_lora
from policy.pcm import PCM, load_pcm, save_pcm, weights_sha256
from policy.task import Task
from tests.fuzz.case import Family, Fault, Inject
from tests.fuzz.safetensors_faults import Subject, inject_file_fault, read, try_file
from training.data.task_file import load_task

PUSHT = load_task("pusht").task
CONFIG = PolicyConfig(
    down_dims=(8, 16),
    step_embed_dim=8,
    n_groups=4,
    image_encoder=ImageEncoderConfig(width=16, features=8),
)


def tiny_policy(task: Task = PUSHT) -> DiffusionPolicy:
    """An untrained policy of a task of PushT's shapes, always the same, with a covariance."""
    torch.manual_seed(0)
    normalizer = Normalizer(
        Range(torch.full((20,), 10.0), torch.full((20,), 500.0)),
        Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
    )
    network = CONFIG.build_network(task).eval()
    encoders = CONFIG.build_encoders(task)
    return DiffusionPolicy(
        network,
        task,
        CONFIG,
        normalizer,
        provenance={"seed": 0},
        covariance=0.02 * torch.eye(32),
        encoders=None if encoders is None else encoders.eval(),
    )


def prepare(folder: Path) -> Inject:
    policy = tiny_policy()
    policy.save(folder / "good.safetensors")
    subjects = [Subject(folder / "good.safetensors", lambda path: _policy_again(path), CheckpointError)]
    for weights in ("lora", "full"):
        file = folder / f"good_{weights}.safetensors"
        _save_pcm(file, policy, weights)
        subjects.append(Subject(file, lambda path: _pcm_again(path, policy), CheckpointError))

    for subject in subjects:  # the first of all takes longer, as libraries are loaded
        subject.load(subject.file)

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        subject = subjects[rng.choice(len(subjects), p=[0.6, 0.3, 0.1])]
        path = case / "file.safetensors"
        text, check = inject_file_fault(rng, subject.file, path)
        return Fault(f"{subject.file.stem}, {text}", lambda: try_file(subject, path, check))

    return inject


def _policy_again(path: Path) -> Checkpoint:
    """What a policy's file is when it is read and written again. What was read must also compute."""
    policy = DiffusionPolicy.load(path)
    again = path.with_name(f"{path.stem}_again.safetensors")
    policy.save(again)
    config = policy.config
    if config.horizon * config.observation_steps < 10_000:
        middle = torch.zeros(1, config.observation_steps, policy.task.observation_dim)
        middle += policy.normalizer.observation.minimum
        sampled = policy.with_sampler(SamplerConfig("sequential", "ddim", 1))
        try:
            chunk = sampled.predict_chunk(middle, generator=torch.Generator().manual_seed(0))
        except RuntimeError as error:
            # Weights of 1e30 are as they were saved; what they predict is refused.
            if "the prediction is not finite" not in str(error):
                raise
        else:
            assert chunk.isfinite().all()
    return read(again)


def _save_pcm(path: Path, policy: DiffusionPolicy, weights: str) -> None:
    network = CONFIG.build_network(PUSHT).eval()
    network.load_state_dict(policy.network.state_dict())
    adapters = {"rank": 2, "targets": r"(up|middle)\..*"} if weights == "lora" else {}
    if weights == "lora":
        add_lora(network, rank=2, targets=r"(up|middle)\..*", generator=torch.Generator().manual_seed(0))
    pcm = PCM(
        network,
        weights=weights,
        base_sha256=weights_sha256(policy.network),
        solver="ddim",
        steps=4,
        jacobian="drift",
        start="fresh",
        iterations=2,
        **adapters,  # type: ignore[arg-type]
    )
    save_pcm(path, pcm)


def _pcm_again(path: Path, base: DiffusionPolicy) -> Checkpoint:
    pcm = load_pcm(path, base.network)
    again = path.with_name(f"{path.stem}_again.safetensors")
    save_pcm(again, pcm)
    base.with_pcm(pcm)
    return read(again)


CHECKPOINTS = Family("checkpoints", 0.25, prepare)
