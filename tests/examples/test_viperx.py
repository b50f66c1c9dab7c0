"""The arm of examples/viperx: its environment, expert and demonstrations. Skipped without MuJoCo and gym-aloha."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco")
if find_spec("gym_aloha") is None:
    pytest.skip("needs gym-aloha, see examples/viperx", allow_module_level=True)

from training.data.demonstrations import load_demonstrations
from training.evaluation.environment import Environment, EnvironmentConfig, commanded_positions
from viperx.demonstrate import demonstrate, main
from viperx.environment import HIGH, HOME, LOW, OPEN, PickPlaceEnv
from viperx.expert import expert_action, hand_pose, joints_for
from viperx.task import TASK


@pytest.fixture(scope="module")
def env() -> PickPlaceEnv:
    return PickPlaceEnv()


def run(env: PickPlaceEnv, seed: int, steps: int = 60) -> tuple[bool, list[float]]:
    """Whether the expert succeeded, and its rewards."""
    observation, _ = env.reset(seed=seed)
    rewards: list[float] = []
    while len(rewards) < steps:
        observation, reward, terminated, _, info = env.step(expert_action(observation))
        rewards.append(reward)
        if terminated:
            assert info["is_success"]
            return True, rewards
    return False, rewards


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_expert_puts_the_cube_onto_the_target(env: PickPlaceEnv, seed: int) -> None:
    success, rewards = run(env, seed)
    assert success
    assert rewards[-1] == 1
    assert all(0 <= reward <= 0.75 for reward in rewards[:-1])
    assert rewards[0] == 0, "the cube lies on the table"


def test_the_same_seed_is_the_same_episode_to_the_last_bit(env: PickPlaceEnv) -> None:
    first, again = env.reset(seed=7)[0], None
    for _ in range(5):
        moved = env.step(np.add(HOME, 0.1))[0]
    again = env.reset(seed=7)[0]
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for _ in range(5):
        repeated = env.step(np.add(HOME, 0.1))[0]
    assert all(np.array_equal(moved[name], repeated[name]) for name in moved)
    other = env.reset(seed=8)[0]
    assert not np.array_equal(first["cube"], other["cube"])
    assert math.dist(first["cube"][:2], first["target"]) >= 0.12


def test_joints_go_where_they_are_sent_within_their_limits(env: PickPlaceEnv) -> None:
    env.reset(seed=0)
    place = (0.35, 0.1, 0.12)
    sent = np.array([*joints_for(*place, yaw=0.3), OPEN])
    for _ in range(10):
        observation = env.step(sent)[0]
    np.testing.assert_allclose(observation["arm"], sent, atol=2e-3)
    np.testing.assert_allclose(hand_pose(observation["arm"]), [*place, 0.3], atol=2e-3)
    for _ in range(15):
        observation = env.step(np.full(7, 10.0))[0]
    assert observation["arm"][-1] <= HIGH[-1] + 1e-3
    assert (observation["arm"] >= np.array(LOW) - 0.05).all()
    with pytest.raises(ValueError, match="action must be 7 finite joint positions"):
        env.step(np.full(7, np.nan))


def test_the_task_fits_the_environment() -> None:
    environment = Environment(EnvironmentConfig("viperx:viperx/PickPlace-v0"), TASK, max_steps=3)
    observation = environment.reset(seed=0)
    assert observation.shape == (13,)
    assert commanded_positions(TASK) == list(range(7))
    step = environment.step(environment.position(observation))
    np.testing.assert_allclose(step.observation, observation, atol=1e-2)
    assert not step.success


def test_demonstrations_are_read_as_they_were_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "viperx.zarr"
    assert main([str(store), "--episodes", "2"]) == 0
    assert "2 episodes" in capsys.readouterr().out
    demonstrations = load_demonstrations(store)
    assert demonstrations.task == TASK
    rows = demonstrate(0, 0.01)
    assert rows is not None
    observations, actions = rows
    first = slice(0, demonstrations.episode_ends[0])
    np.testing.assert_array_equal(demonstrations.observations[first], observations.astype(np.float32))
    np.testing.assert_array_equal(demonstrations.actions[first], actions.astype(np.float32))
    assert main([str(store), "--episodes", "2"]) == 1
    assert "is there already" in capsys.readouterr().err
