"""The arm of examples/viperx: its environment, expert and demonstrations. Skipped without MuJoCo and gym-aloha."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("yaml")
pytest.importorskip("mujoco")
if find_spec("gym_aloha") is None:
    pytest.skip("needs gym-aloha, see examples/viperx", allow_module_level=True)

import yaml

from training.data.demonstrations import load_demonstrations
from training.evaluation.environment import Environment, EnvironmentConfig, commanded_positions
from viperx.demonstrate import demonstrate, main
from viperx.environment import HIGH, HOME, LOW, PressButtonsEnv
from viperx.expert import expert_action, fingertips, joints_for
from viperx.task import TASK

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "viperx"


@pytest.fixture(scope="module")
def env() -> PressButtonsEnv:
    return PressButtonsEnv()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_expert_presses_one_button_after_the_other(env: PressButtonsEnv, seed: int) -> None:
    observation, _ = env.reset(seed=seed)
    rewards: list[float] = []
    terminated = False
    while not terminated:
        assert observation["lit"][0] == (rewards[-1:] == [0.5])
        observation, reward, terminated, _, info = env.step(expert_action(observation))
        rewards.append(reward)
        assert info["is_success"] == terminated
        assert len(rewards) < 50
    assert rewards == sorted(rewards)
    assert set(rewards) == {0.0, 0.5, 1.0}


def test_the_second_button_alone_does_nothing(env: PressButtonsEnv) -> None:
    observation, _ = env.reset(seed=1)
    x, y = observation["second"]
    for height in (0.1, 0.06, 0.016, 0.016):
        for _ in range(10):
            observation, reward, terminated, _, _ = env.step(joints_for(x, y, height))
    assert fingertips(observation["arm"])[2] < 0.025, "it is pressed"
    assert (reward, terminated, observation["lit"][0]) == (0, False, 0)


def test_the_same_seed_is_the_same_episode_to_the_last_bit(env: PressButtonsEnv) -> None:
    first = env.reset(seed=7)[0]
    for _ in range(5):
        moved = env.step(np.add(HOME, 0.1))[0]
    again = env.reset(seed=7)[0]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for _ in range(5):
        repeated = env.step(np.add(HOME, 0.1))[0]
    assert all(np.array_equal(moved[name], repeated[name]) for name in moved)
    other = env.reset(seed=8)[0]
    assert not np.array_equal(first["first"], other["first"])
    assert math.dist(first["first"], first["second"]) >= 0.15


def test_joints_go_where_they_are_sent_within_their_limits(env: PressButtonsEnv) -> None:
    env.reset(seed=0)
    place = (0.35, 0.1, 0.12)
    sent = joints_for(*place)
    for _ in range(10):
        observation = env.step(sent)[0]
    np.testing.assert_allclose(observation["arm"], sent, atol=2e-3)
    np.testing.assert_allclose(fingertips(observation["arm"]), place, atol=2e-3)
    for _ in range(15):
        observation = env.step(np.full(6, 10.0))[0]
    assert (observation["arm"] <= np.array(HIGH) + 0.1).all()
    assert (observation["arm"] >= np.array(LOW) - 0.1).all()
    with pytest.raises(ValueError, match="action must be 6 finite joint positions"):
        env.step(np.full(6, np.nan))


def test_the_task_fits_the_environment() -> None:
    environment = Environment(EnvironmentConfig("viperx:viperx/PressButtons-v0"), TASK, max_steps=3)
    observation = environment.reset(seed=0)
    assert observation.shape == (11,)
    assert commanded_positions(TASK) == list(range(6))
    step = environment.step(environment.position(observation))
    np.testing.assert_allclose(step.observation, observation, atol=1e-2)
    assert not step.success


def test_the_robot_file_has_a_source_for_each_part() -> None:
    robot = yaml.safe_load((EXAMPLE / "viperx.yaml").read_text())["/**"]["ros__parameters"]
    assert robot["observation_sources"] == [part.name for part in TASK.observation]
    for part in TASK.observation:
        assert robot[part.name]["joints"] == list(part.names)


def test_demonstrations_are_read_as_they_were_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "viperx.zarr"
    assert main([str(store), "--episodes", "2"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    demonstrations = load_demonstrations(store)
    assert demonstrations.task == TASK
    rows = demonstrate(0, 0.02)
    assert rows is not None
    observations, actions = rows
    first = slice(0, demonstrations.episode_ends[0])
    np.testing.assert_array_equal(demonstrations.observations[first], observations.astype(np.float32))
    np.testing.assert_array_equal(demonstrations.actions[first], actions.astype(np.float32))
    assert main([str(store), "--episodes", "2"]) == 1
    assert "is there already" in capsys.readouterr().err
