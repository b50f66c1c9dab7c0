"""From demonstrations in any gymnasium environment to episodes there, through the commands."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, PolicyConfig, SamplerConfig
from policy.normalizer import fit_normalizer
from slider_env import TASK
from training.data.write_demonstrations import write_demonstrations
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.evaluate import main as evaluate
from training.evaluation.latency import LatencyConfig
from training.evaluation.rollout import run_episodes
from training.policy.train_policy import main as train

SLIDER = EnvironmentConfig("slider_env:Slider-v0", {"goal": "goal_position"})
ARGUMENTS = ["environment.id=slider_env:Slider-v0", "environment.observation.goal=goal_position"]
SMALL = PolicyConfig(horizon=8, action_steps=4, down_dims=(8, 16), step_embed_dim=8, n_groups=4)


@pytest.fixture
def policy() -> DiffusionPolicy:
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    normalizer = fit_normalizer(
        TASK, torch.rand((64, 6), generator=random), torch.rand((64, 3), generator=random), scaling={}
    )
    network = SMALL.build_network(TASK).eval()
    policy = DiffusionPolicy(network, TASK, SMALL, normalizer, provenance={})
    return policy.with_sampler(SamplerConfig("sequential", "ddim", 2))


def test_rewards_equal_those_of_a_plain_loop(policy: DiffusionPolicy) -> None:
    rollout = run_episodes(policy, [5], 9, environment=SLIDER, show_progress=False)

    env = Environment(SLIDER, TASK, max_steps=9)
    before = observation = env.reset(5)
    generator, rewards = torch.Generator().manual_seed(5), []
    while len(rewards) < 9:
        history = torch.tensor(np.array([[before, observation]]), dtype=torch.float32)
        for action in policy.predict_chunk(history, generator=generator)[0][: 9 - len(rewards)]:
            before, step = observation, env.step(action.double().numpy())
            observation = step.observation
            rewards.append(step.reward)
    assert rollout.episodes[0].rewards.tolist() == rewards
    assert rollout.episodes[0].max_reward == max(rewards) < 0
    assert not rollout.episodes[0].success


def test_the_robot_holds_its_position_until_the_first_chunk(policy: DiffusionPolicy) -> None:
    late = LatencyConfig("fixed", ms=600)  # three control steps of this task
    (episode,) = run_episodes(policy, [5], 9, environment=SLIDER, latency=late, show_progress=False).episodes
    assert episode.commands is not None
    assert np.array_equal(episode.commands[:3], np.zeros((3, 3)))
    assert not np.array_equal(episode.commands[3], np.zeros(3))


def test_demonstrations_become_a_policy_that_acts_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demonstrations, trained, out = tmp_path / "slider.zarr", tmp_path / "trained", tmp_path / "out"
    with write_demonstrations(demonstrations, TASK) as writer:
        for seed in range(8):
            env = Environment(SLIDER, TASK, max_steps=8)
            observations = [env.reset(seed)]
            observations += [env.step(observations[0][:3]).observation for _ in range(5)]
            writer.append(observations, [observations[0][:3]] * 6)
    network = [
        "policy.horizon=8",
        "policy.action_steps=4",
        "policy.down_dims=[8,16]",
        "policy.step_embed_dim=8",
    ]
    training = [
        "training.steps=10",
        "training.batch_size=8",
        "training.log_every=5",
        "training.warmup_steps=1",
    ]
    periods = ["training.validate_every=10", "training.checkpoint_every=10", "held_out_episodes=1"]
    command = [f"demonstrations={demonstrations}", f"output_dir={trained}", *training, *periods, *network]
    rollouts = ["rollout_episodes=2", "rollout_max_steps=6", "rollout_sampler.steps=2"]
    assert train([*command, *rollouts, *ARGUMENTS]) == 0
    log = (trained / "log.csv").read_text().splitlines()
    last = dict(zip(log[0].split(","), log[-1].split(","), strict=True))
    assert -2 < float(last["rollout_reward"]) < 0

    sampler = ["sampler.solver=ddim", "sampler.steps=2", "episodes=2", "max_steps=6", "recorded_episodes=1"]
    checkpoint = f"checkpoint={trained}/policy.safetensors"
    assert evaluate([checkpoint, f"output_dir={out}", *sampler, *ARGUMENTS]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["config"]["environment"]["id"] == "slider_env:Slider-v0"
    assert [episode["success"] for episode in summary["episodes"]].count(True) == 2 * summary["success_rate"]
    assert summary["mean_max_reward"] < 0
    assert summary["jerk_rad"]["mean"] > 0
    assert "rad apart on average" in capsys.readouterr().out
    frames = imageio.mimread(out / "episodes.mp4")
    assert frames[0].shape == (32, 48, 3)
    assert len(frames) == 1 + summary["episodes"][0]["steps"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            [],
            "error: task 'slide' has no environment of its own: environment.id=… names one; it is not PushT (",
        ),
        (ARGUMENTS[:1], "error: environment 'slider_env:Slider-v0' observes no 'goal', but arm, camera"),
        (
            [*ARGUMENTS, "environment.success=solved"],
            "error: info of environment 'slider_env:Slider-v0' has no solved",
        ),
    ],
)
def test_an_environment_that_does_not_fit_is_an_error_in_one_line(
    policy: DiffusionPolicy,
    arguments: list[str],
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy.save(tmp_path / "policy.safetensors")
    command = [f"checkpoint={tmp_path}/policy.safetensors", f"output_dir={tmp_path}/out", "sampler.steps=2"]
    assert evaluate([*command, *arguments, "episodes=1"]) == 1
    errors = [found for found in capsys.readouterr().err.splitlines() if found.startswith("error:")]
    assert len(errors) == 1
    assert errors[0].startswith(line)
    assert not (tmp_path / "out").exists()
