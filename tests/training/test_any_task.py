"""Every command of the training, one after the other, on a robot that is not PushT and has no environment."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policy import CheckpointError, Command, DiffusionPolicy, Part, SamplerConfig, StopConfig, Task
from policy.pcm import load_pcm
from training.data.demonstrations import load_demonstrations
from training.data.write_demonstrations import write_demonstrations
from training.evaluation import evaluate
from training.pcm import build_trajectories, train_pcm
from training.policy import estimate_covariance, train_policy

ARM = Task(
    name="arm",
    rate=30,
    observation=(
        Part(name="joints", names=("shoulder", "elbow"), units=("rad", "rad")),
        Part(name="effort", names=("shoulder", "elbow"), units=("Nm", "Nm")),
        Part(name="gripper", names=("opening",), units=("m",)),
    ),
    action=Command(
        names=("shoulder", "elbow", "gripper"),
        units=("rad", "rad", "m"),
        lower=(-3.0, -3.0, None),
        upper=(3.0, 3.0, None),
    ),
)
SHUT = np.float32(0.0213)
TINY = ["policy.down_dims=[8,16]", "policy.step_embed_dim=8", "policy.n_groups=4", "policy.horizon=8"]
STEPS = ["policy.action_steps=4", "training.batch_size=8", "training.steps=20", "training.warmup_steps=1"]
PERIODS = ["training.log_every=5", "training.checkpoint_every=20", "training.validate_every=20"]
TRAINING = [*TINY, *STEPS, *PERIODS, "held_out_episodes=1", "device=cpu"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes of an arm whose gripper never moves."""
    path = tmp_path_factory.mktemp("arm") / "arm.zarr"
    rng = np.random.default_rng(0)
    with write_demonstrations(path, ARM) as writer:
        for steps in (20, 25, 30):
            joints = np.cumsum(rng.normal(0, 0.1, (steps, 2)), axis=0)
            gripper = np.full((steps, 1), SHUT)
            effort = rng.normal(0, 5, (steps, 2))
            writer.append(np.hstack([joints, effort, gripper]), np.hstack([joints + 0.1, gripper]))
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output directory of a training."""
    output = tmp_path_factory.mktemp("trained")
    arguments = [f"demonstrations={store}", f"output_dir={output}", *TRAINING]
    assert train_policy.main([*arguments, "normalization.effort=mean_deviation"]) == 0
    return output


def test_the_policy_knows_its_task_and_commands_what_never_varied_as_it_was(
    store: Path, trained: Path
) -> None:
    policy = DiffusionPolicy.load(trained / "policy.safetensors")
    assert policy.task == ARM
    observations = torch.from_numpy(load_demonstrations(store).observations[:2])[None]
    prediction = policy.predict(observations, generator=torch.Generator().manual_seed(0))
    assert prediction.chunk.shape == (1, 4, 3)
    assert (prediction.actions[..., 2] == float(SHUT)).all()
    effort = policy.normalizer.observation.normalize(
        torch.from_numpy(load_demonstrations(store).observations)
    )
    assert effort[:, 2:4].mean().abs() < 1e-5
    assert not effort[:, 4].any()
    with open(trained / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["held_out_loss"]) > 0
    assert not last["rollout_reward"]


def test_it_is_judged_by_its_held_out_episodes_without_a_simulator(
    store: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = json.loads((trained / "held_out.json").read_text())
    assert [row["name"] for row in held_out["dimensions"]] == ["shoulder", "elbow", "gripper"]
    assert (
        "the last action of gripper" in held_out["baselines"]["hold"]
    )  # its position is observed as opening
    assert held_out["dimensions"][2]["policy"]["mean_absolute"]["mean"] == 0  # shut, as demonstrated
    arguments = [f"checkpoint={trained}/policy.safetensors", f"output_dir={tmp_path}/out"]
    judge = ["sampler.solver=ddim", "sampler.steps=10", *arguments]
    assert evaluate.main([f"demonstrations={store}", *judge]) == 0
    assert "episodes: held out by its training" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dimensions"] == held_out["dimensions"]  # the same sampler, the same noises


def test_covariance_trajectories_and_pcm_follow_from_it(
    store: Path,
    trained: Path,
    untrained: DiffusionPolicy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base, trajectories = tmp_path / "base.safetensors", tmp_path / "trajectories.zarr"
    checkpoint = f"checkpoint={trained}/policy.safetensors"
    demonstrations = f"demonstrations={store}"
    small = ["observations=4", "samples=4", "steps=2"]
    assert estimate_covariance.main([checkpoint, demonstrations, f"output={base}", *small]) == 0
    policy = DiffusionPolicy.load(base)
    assert policy.covariance is not None
    assert policy.covariance.shape == (24, 24)
    # What never varies has no variance, and nothing is divided by it.
    assert not policy.covariance.view(8, 3, 8, 3)[:, 2].any()

    small = ["samples=12", "batch_size=4", "sampler.steps=4", "iterations=2", "held_out_episodes=1"]
    small += ["sampler.picard.jacobian=preconditioned", "sampler.picard.start=gaussian"]
    assert (
        build_trajectories.main([f"checkpoint={base}", demonstrations, f"output={trajectories}", *small]) == 0
    )
    small = ["rank=2", "epochs=1", "held_out_samples=4", "training.batch_size=4", "validated_iterations=1"]
    small += ["training.log_every=1", "training.checkpoint_every=1", "training.validate_every=1"]
    small += ["iterations=null", "base_iterations=0", "start_model=base", "device=cpu"]
    output = tmp_path / "pcm"
    assert (
        train_pcm.main([f"checkpoint={base}", f"trajectories={trajectories}", f"output_dir={output}", *small])
        == 0
    )
    pcm = load_pcm(output / "pcm.safetensors", policy.network)
    sampled = policy.with_pcm(pcm).with_sampler(SamplerConfig("pcm", stop=StopConfig(iterations=1)))
    observations = torch.from_numpy(load_demonstrations(store).observations[:2])[None]
    chunk = sampled.predict_chunk(observations, generator=torch.Generator().manual_seed(0))
    assert chunk.isfinite().all()

    # Neither the PCM nor the trajectories are for a policy of another task.
    with pytest.raises(CheckpointError, match=r"pcm\.safetensors: trained from another base"):
        load_pcm(output / "pcm.safetensors", untrained.network)
    replace(untrained, covariance=torch.eye(32)).save(tmp_path / "pusht.safetensors")
    arguments = [f"trajectories={trajectories}", f"output_dir={tmp_path}/other", *small]
    assert train_pcm.main([f"checkpoint={tmp_path}/pusht.safetensors", *arguments]) == 1
    assert "trajectories.zarr: trajectories of a base whose weights have" in capsys.readouterr().err


REFUSALS = [
    (["augmentation=mirror"], "arm.zarr: augmentation=mirror is for PushT, the task arm has no mirror image"),
    (["rollout_episodes=1"], "task 'arm' has no environment of its own: environment.id=… names one"),
    (["normalization.camera=limits"], "normalization.camera: the task has the parts joints, effort, gripper"),
    (["task=pusht"], "arm.zarr: array data/keypoint is missing"),
]


@pytest.mark.parametrize(("more", "message"), REFUSALS)
def test_what_the_task_does_not_have_is_refused_in_a_line(
    store: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_policy.main([f"demonstrations={store}", f"output_dir={tmp_path}", *TRAINING, *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_demonstrations_of_another_task_are_refused_by_the_name_of_the_part(
    store: Path, untrained: DiffusionPolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untrained.save(tmp_path / "pusht.safetensors")
    arguments = [f"checkpoint={tmp_path}/pusht.safetensors", f"demonstrations={store}"]
    assert estimate_covariance.main([*arguments, f"output={tmp_path}/new.safetensors"]) == 1
    said = "arm.zarr: demonstrations do not fit the policy: part keypoints is missing"
    assert said in capsys.readouterr().err
    arguments = [*arguments, f"output_dir={tmp_path}/out", "sampler.steps=2"]
    assert evaluate.main(arguments) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
