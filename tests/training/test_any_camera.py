"""The commands of the training, one after the other, for a policy that sees PushT by a camera."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from safetensors import safe_open

from policy import DiffusionPolicy, SamplerConfig
from pusht_env.env import PushTEnv
from training.data.demonstrations import load_demonstrations
from training.data.features import with_features
from training.evaluation import evaluate
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.rollout import run_episodes
from training.pcm import build_trajectories
from training.policy import estimate_covariance, train_policy
from training.policy.seeing import PictureBatches

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "pusht_image.safetensors"
TINY = [
    "preset=image",
    "policy.down_dims=[8,16]",
    "policy.step_embed_dim=8",
    "policy.n_groups=4",
    "policy.horizon=8",
]
ENCODER = ["policy.image_encoder.width=16", "policy.image_encoder.features=8", "policy.action_steps=4"]
TRAINING = [
    "training.batch_size=8",
    "training.warmup_steps=1",
    "training.steps=4",
    "training.precision=float32",
]
PERIODS = ["training.log_every=2", "training.checkpoint_every=2", "training.validate_every=4"]
ROLLOUTS = [
    "rollout_episodes=1",
    "rollout_max_steps=8",
    "rollout_sampler.steps=2",
    "held_out_sampler.steps=2",
]
OPTIONS = [
    *TINY,
    *ENCODER,
    *TRAINING,
    *PERIODS,
    *ROLLOUTS,
    "held_out_episodes=1",
    "task=pusht_image",
    "device=cpu",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short episodes of a pusher that moves at random, with pictures as published: float32."""
    env = PushTEnv(obs_type="pixels_agent_pos")
    states, pictures, actions = [], [], []
    rng = np.random.default_rng(0)
    for seed in range(3):
        seen, _ = env.reset(seed=seed)
        for _ in range(12):
            states.append(env.state)
            pictures.append(seen["pixels"])
            actions.append(seen["agent_pos"] + rng.normal(0, 30, 2))
            seen, *_ = env.step(actions[-1])
    path = tmp_path_factory.mktemp("seen") / "seen.zarr"
    group = zarr.open_group(path, mode="w")
    for name, values in (("state", states), ("img", pictures), ("action", actions)):
        array = np.stack(values).astype(np.float32)
        group.create_array(f"data/{name}", shape=array.shape, chunks=(5, *array.shape[1:]), dtype="f4")[:] = (
            array
        )
    group.create_array("meta/episode_ends", shape=(3,), dtype="i8")[:] = [12, 24, 36]
    return path


def train(store: Path, output: Path, *more: str) -> int:
    return train_policy.main([f"demonstrations={store}", f"output_dir={output}", *OPTIONS, *more])


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    assert train(store, output) == 0
    return output


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_encoders_learn_with_the_network_and_are_averaged(trained: Path) -> None:
    state = weights(trained / "training_state.safetensors")
    name = "encoders.encoders.of_camera.resnet.conv1.weight"
    averaged = weights(trained / "policy.safetensors")[
        "image_encoders.encoders.of_camera.resnet.conv1.weight"
    ]

    assert torch.equal(state[f"averaged.{name}"], averaged)
    assert not torch.equal(state[f"network.{name}"], averaged)
    with open(trained / "log.csv", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    assert 0 <= float(last["data_wait"]) <= 1
    assert float(last["rollout_reward"]) >= 0
    assert float(last["held_out_loss"]) > 0


def test_a_killed_training_goes_on_with_the_same_pictures(
    store: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = PictureBatches.batch

    def dies(batches: PictureBatches, step: int) -> dict[str, torch.Tensor]:
        if step == 3:
            raise KeyboardInterrupt
        return read(batches, step)

    monkeypatch.setattr(PictureBatches, "batch", dies)
    assert train(store, tmp_path) == 130
    monkeypatch.undo()
    assert train(store, tmp_path) == 0

    found, expected = (weights(folder / "policy.safetensors") for folder in (tmp_path, trained))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_mirror_images_are_shown_with_their_own_positions_and_training_goes_on(
    store: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    showing = train_policy.showing

    def watched(network: Any, pictures: Any, **more: Any) -> Any:
        predict = showing(network, pictures, **more)

        def noticed(sample: torch.Tensor, timestep: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
            shown.append((pictures["camera"], vectors.view(len(vectors), -1, 2)))
            return predict(sample, timestep, vectors)

        return noticed

    monkeypatch.setattr(train_policy, "showing", watched)
    more = [
        "augmentation=mirror",
        f"initial={trained / 'policy.safetensors'}",
        "training.learning_rate=1e-9",
    ]
    assert train(store, tmp_path, *more) == 0
    policy = DiffusionPolicy.load(tmp_path / "policy.safetensors")
    begun = weights(trained / "policy.safetensors")
    for name, each in weights(tmp_path / "policy.safetensors").items():
        torch.testing.assert_close(each, begun[name], atol=1e-5, rtol=0)
    pictures, vectors = (torch.cat(each).flatten(0, 1) for each in zip(*shown, strict=True))
    positions = policy.normalizer.observation.unnormalize(vectors)
    blue = (pictures.int() - torch.tensor([78, 126, 255])).abs().amax(-1) < 30  # the pusher's inside
    for seen, position in zip(blue, positions, strict=True):
        centre = seen.nonzero().float().mean(0).flip(0) * 512 / 96
        assert (centre - position).abs().max() < 8


def test_features_are_those_of_each_picture_alone(store: Path, trained: Path) -> None:
    policy = DiffusionPolicy.load(trained / "policy.safetensors")
    demonstrations = load_demonstrations(store, task="pusht_image")
    seen = with_features(demonstrations, policy, [1])

    picture = torch.from_numpy(demonstrations.pictures["camera"].read(np.array([14])))
    expected = policy.encode_images({"camera": picture})[0].numpy()
    np.testing.assert_allclose(seen.observations[14, 2:], expected, atol=1e-5)
    np.testing.assert_array_equal(seen.observations[:, :2], demonstrations.observations)
    assert np.isnan(seen.observations[24:, 2:]).all()


def test_it_is_evaluated_in_the_simulator_and_by_demonstrations(
    store: Path, trained: Path, tmp_path: Path
) -> None:
    checkpoint = f"checkpoint={trained / 'policy.safetensors'}"
    simulated = [f"output_dir={tmp_path / 'simulated'}", "episodes=1", "max_steps=8", "recorded_episodes=0"]
    assert evaluate.main([checkpoint, *simulated, "sampler.steps=2"]) == 0
    judged = [f"demonstrations={store}", "task=pusht_image", f"output_dir={tmp_path / 'judged'}"]
    assert evaluate.main([checkpoint, *judged, "sampler.steps=2", "noise_seeds=1"]) == 0

    summary = json.loads((tmp_path / "judged" / "summary.json").read_text(encoding="utf-8"))
    assert summary["episodes_are"] == "held out by its training"


def test_pcms_learn_from_conditions(store: Path, trained: Path, tmp_path: Path) -> None:
    """Trajectories hold rows of numbers and features, no pictures."""
    checkpoint, demonstrations = f"checkpoint={trained / 'policy.safetensors'}", f"demonstrations={store}"
    with_covariance = tmp_path / "covariance.safetensors"
    sizes = ["observations=4", "samples=3", "steps=2"]
    command = [checkpoint, demonstrations, "task=pusht_image", f"output={with_covariance}"]
    assert estimate_covariance.main([*command, *sizes]) == 0
    output = tmp_path / "trajectories"
    options = [f"output={output}", "samples=4", "iterations=2", "sampler.steps=3", "held_out_episodes=1"]
    command = [f"checkpoint={with_covariance}", demonstrations, "task=pusht_image", "device=cpu"]
    assert build_trajectories.main([*command, *options]) == 0

    conditions = [array for name, array in zarr.open_group(output, mode="r").arrays() if name == "condition"]
    assert conditions[0].shape == (4, 2 * (2 + 8))


def test_the_environment_shows_what_a_camera_task_needs(trained: Path) -> None:
    task = DiffusionPolicy.load(trained / "policy.safetensors").task
    environment = Environment(EnvironmentConfig(), task)
    env = PushTEnv(obs_type="pixels_agent_pos")

    observation, (seen, _) = environment.reset(seed=5), env.reset(seed=5)
    np.testing.assert_array_equal(environment.pictures["camera"], seen["pixels"])
    assert observation.tolist() == seen["agent_pos"].tolist()
    with pytest.raises(ValueError, match=r"observes Box.*, but the task has the parts camera, pusher"):
        Environment(EnvironmentConfig(options={"obs_type": "state"}), task)
    with pytest.raises(ValueError, match="the part 'camera' needs a picture \\(96, 96, 3\\) of uint8"):
        Environment(EnvironmentConfig(observation={"camera": "agent_pos"}), task)


def test_the_shipped_policy_sees_what_to_push() -> None:
    policy = DiffusionPolicy.load(SHIPPED, sampler=SamplerConfig("sequential", "dpmpp_2m", 5))
    episodes = run_episodes(policy, [100005, 100007], 110, show_progress=False).episodes
    assert np.mean([episode.max_reward for episode in episodes]) > 0.7
