from __future__ import annotations

import math
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import pusht_env  # noqa: F401 (registers the environment)
from pusht_env.block import GOAL_POSE, keypoint_observation
from pusht_env.env import PushTEnv

ENV_ID = "pusht_env/PushT-v0"
AWAY_FROM_GOAL = [400.0, 100.0, 120.0, 350.0, 2.0]
AT_GOAL = [60.0, 60.0, *GOAL_POSE]

inside = st.floats(0.0, 512.0)
states = st.tuples(inside, inside, inside, inside, st.floats(0.0, math.tau, exclude_max=True)).map(list)


def make(**arguments: Any) -> gym.Env[Any, Any]:
    return gym.make(ENV_ID, **arguments)


@pytest.mark.parametrize(
    ("obs_type", "render_mode"),
    [("keypoints", "rgb_array"), ("state", "rgb_array"), ("pixels", "rgb_array"), ("keypoints", "human")],
)
def test_gymnasiums_checker_finds_nothing(
    obs_type: str, render_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with make(obs_type=obs_type, render_mode=render_mode) as env, warnings.catch_warnings():
        warnings.simplefilter("error")
        # Actions are px of the workspace by definition of the task.
        warnings.filterwarnings("ignore", message=".*we recommend using a symmetric and normalized space")
        check_env(env.unwrapped)


@pytest.mark.parametrize(
    ("obs_type", "shape", "dtype"),
    [("keypoints", (20,), np.float64), ("state", (5,), np.float64), ("pixels", (96, 96, 3), np.uint8)],
)
def test_observations_are_in_the_space(obs_type: str, shape: tuple[int, ...], dtype: type) -> None:
    env = make(obs_type=obs_type)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        assert env.observation_space.contains(observation)
        assert observation.shape == shape
        assert observation.dtype == dtype
        observation, *_ = env.step(env.action_space.sample())


def test_a_block_pressed_through_the_walls_stays_in_the_observation_space() -> None:
    random = np.random.default_rng(0)
    keypoints, states = PushTEnv(), PushTEnv(obs_type="state")
    farthest = 0.0
    for _ in range(60):
        keypoints.reset(options={"state": [*random.uniform(0, 512, 2), *random.choice([20, 492], 2), 0.0]})
        for target in random.choice([0.0, 512.0], (30, 2)):
            observation, *_ = keypoints.step(target)
            assert keypoints.observation_space.contains(observation)
            assert states.observation_space.contains(keypoints.state)
            farthest = max(farthest, np.abs(observation - 256).max())

    assert farthest > 256 + 100, "the block never left the workspace, so that this proved nothing"


def test_keypoints_are_the_default_and_follow_from_the_state() -> None:
    env = PushTEnv()
    observation, _ = env.reset(seed=3)

    np.testing.assert_array_equal(observation, keypoint_observation(env.state))


def test_seed_gives_diffusion_policys_initial_state() -> None:
    """The block's angle was set after its position, and turned it about its centre of gravity."""
    random = np.random.RandomState(7)
    pusher = [random.randint(50, 450), random.randint(50, 450)]
    block = [random.randint(100, 400), random.randint(100, 400)]
    angle = random.randn() * 2 * np.pi - np.pi

    state, _ = make(obs_type="state").reset(seed=7)

    centre_of_gravity = (
        45.0  # midway between the middles of bar (15) and stem (75), straight below the origin
    )
    turned = block + centre_of_gravity * np.array([math.sin(angle), 1 - math.cos(angle)])
    np.testing.assert_allclose(state, [*pusher, *turned, angle % math.tau], atol=1e-9)


def test_same_seed_same_episode() -> None:
    env = make(obs_type="state")
    env.action_space.seed(5)
    actions = [env.action_space.sample() for _ in range(30)]

    def episode() -> list[np.ndarray[Any, Any]]:
        return [env.reset(seed=11)[0], *(env.step(action)[0] for action in actions)]

    np.testing.assert_array_equal(episode(), episode())


def test_reset_without_seed_draws_new_episodes_that_an_earlier_seed_decides() -> None:
    env = make(obs_type="state")

    def three_resets() -> list[list[float]]:
        return [env.reset(seed=seed)[0].tolist() for seed in (21, None, None)]

    first = three_resets()
    assert len({tuple(state) for state in first}) == 3
    assert three_resets() == first


@given(states)
def test_state_option_round_trips(state: list[float]) -> None:
    observation, info = PushTEnv(obs_type="state").reset(options={"state": state})

    np.testing.assert_allclose(observation, state, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(info["pusher_position"], observation[:2])
    np.testing.assert_array_equal(info["block_pose"], observation[2:])


def test_setting_the_state_mid_episode_forgets_what_moved() -> None:
    env = PushTEnv(obs_type="state")
    env.reset(seed=0)
    for _ in range(5):
        env.step([500, 500])
    env.state = AWAY_FROM_GOAL
    after_setting, *_ = env.step([120, 300])

    fresh = PushTEnv(obs_type="state")
    fresh.reset(options={"state": AWAY_FROM_GOAL})
    after_reset, *_ = fresh.step([120, 300])

    np.testing.assert_array_equal(after_setting, after_reset)


def test_angles_are_in_zero_to_two_pi() -> None:
    env = PushTEnv(obs_type="state")

    for angle in (-0.5, 7.0, -1e-20, math.tau):
        observation, _ = env.reset(options={"state": [50, 50, 256, 256, angle]})
        assert 0 <= observation[4] < math.tau
        assert math.cos(observation[4]) == pytest.approx(math.cos(angle))
        assert math.sin(observation[4]) == pytest.approx(math.sin(angle))


def test_a_block_turned_many_times_moves_like_one_turned_once() -> None:
    def after_push(angle: float) -> np.ndarray[Any, Any]:
        env = PushTEnv(obs_type="state")
        env.reset(options={"state": [200, 256, 256, 256, angle]})
        return env.step([300, 270])[0]

    np.testing.assert_array_equal(after_push(1e17), after_push(1e17 % math.tau))


def test_success_at_the_goal_pose() -> None:
    env = make()
    _, info = env.reset(options={"state": AT_GOAL})
    assert info["coverage"] == pytest.approx(1.0)
    assert info["is_success"] is True

    _, reward, terminated, truncated, info = env.step([60, 60])

    assert reward == 1.0
    assert terminated is True
    assert truncated is False
    assert info["is_success"] is True


@pytest.mark.parametrize(("angle_error", "succeeds"), [(0.02, True), (0.05, False)])
def test_episode_ends_above_95_percent_coverage(angle_error: float, succeeds: bool) -> None:
    env = make()
    x, y, angle = GOAL_POSE
    env.reset(options={"state": [60, 60, x, y, angle + angle_error]})

    _, reward, terminated, _, info = env.step([60, 60])

    assert (info["coverage"] > 0.95) is succeeds
    assert terminated is succeeds
    assert reward == pytest.approx(min(info["coverage"] / 0.95, 1.0))


def test_no_reward_far_from_the_goal() -> None:
    env = make()
    env.reset(options={"state": AWAY_FROM_GOAL})

    _, reward, terminated, _, info = env.step([400, 100])

    assert reward == pytest.approx(0.0, abs=1e-12)
    assert terminated is False
    assert info["coverage"] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("arguments", "limit"), [({}, 200), ({"max_episode_steps": 300}, 300)])
def test_episode_is_truncated_at_its_limit(arguments: dict[str, int], limit: int) -> None:
    env = make(**arguments)
    env.reset(options={"state": AWAY_FROM_GOAL})

    truncated = [env.step([400, 100])[3] for _ in range(limit)]

    assert truncated == [False] * (limit - 1) + [True]


def test_a_vector_of_fifty_environments_runs_fifty_episodes() -> None:
    envs = gym.make_vec(ENV_ID, num_envs=50, vectorization_mode="sync", obs_type="state")
    observations, _ = envs.reset(seed=1000)
    single = make(obs_type="state")
    for _ in range(5):
        observations, rewards, *_, infos = envs.step(np.full((50, 2), 256, np.float32))

    assert observations.shape == (50, 5)
    assert rewards.shape == infos["coverage"].shape == (50,)
    for index in (0, 49):
        single.reset(seed=1000 + index)
        for _ in range(5):
            expected, *_ = single.step([256, 256])
        np.testing.assert_array_equal(observations[index], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"obs_type": "image"},
            r"obs_type must be one of \('keypoints', 'state', 'pixels', 'pixels_agent_pos'\), got 'image'",
        ),
        ({"render_mode": "ansi"}, r"render_mode must be None or one of .*'rgb_array', 'human'.*got 'ansi'"),
        ({"render_size": 0}, "render_size must be at least 1 px, got 0"),
    ],
)
def test_unknown_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PushTEnv(**arguments)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([1.0, 2.0, 3.0], r"action must have shape \(2,\).*got shape \(3,\)"),
        ([[1.0, 2.0]], r"action must have shape \(2,\).*got shape \(1, 2\)"),
        (5.0, r"action must have shape \(2,\).*got shape \(\)"),
        ([math.nan, 2.0], "action must be finite, got .*nan"),
        ([1.0, -math.inf], "action must be finite, got .*-inf"),
    ],
)
def test_bad_actions_are_refused_and_lose_nothing(action: Any, message: str) -> None:
    env = PushTEnv(obs_type="state")
    before, _ = env.reset(seed=0)

    with pytest.raises(ValueError, match=message):
        env.step(action)

    np.testing.assert_array_equal(env.state, before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1.0, 2.0, 3.0, 4.0], r"state must have shape \(5,\).*got shape \(4,\)"),
        ([1.0, 2.0, 3.0, 4.0, math.nan], "state must be finite, got .*nan"),
        ([1.0, 2.0, math.inf, 4.0, 0.0], "state must be finite, got .*inf"),
        ([-1.0, 2.0, 3.0, 4.0, 0.0], "inside the workspace, from 0 to 512 px, got .*-1"),
        ([1.0, 2.0, 3.0, 512.5, 0.0], "inside the workspace, from 0 to 512 px, got .*512.5"),
    ],
)
def test_bad_states_are_refused_and_lose_nothing(state: list[float], message: str) -> None:
    env = PushTEnv(obs_type="state")
    before, _ = env.reset(seed=0)

    with pytest.raises(ValueError, match=message):
        env.reset(options={"state": state})
    with pytest.raises(ValueError, match=message):
        env.state = state

    np.testing.assert_array_equal(env.state, before)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_the_initial_state_cannot_take_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be from 0 to 2\*\*32 - 1, got {seed}"):
        PushTEnv().reset(seed=seed)


def test_unknown_reset_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"only the option 'state', got \['sate'\]"):
        PushTEnv().reset(options={"sate": AT_GOAL})


def test_nothing_works_before_the_first_reset() -> None:
    env = PushTEnv(render_mode="rgb_array")
    for use in (lambda: env.step([0, 0]), lambda: env.state, env.render):
        with pytest.raises(gym.error.ResetNeeded, match="call reset before"):
            use()


def test_targets_outside_the_workspace_mean_its_edge() -> None:
    def after(action: list[float]) -> np.ndarray[Any, Any]:
        env = PushTEnv(obs_type="state")
        env.reset(options={"state": AWAY_FROM_GOAL})
        return env.step(action)[0]

    np.testing.assert_array_equal(after([-300, 1e6]), after([0, 512]))
    np.testing.assert_array_equal(after([1e6, -300]), after([512, 0]))


def test_stepping_loads_neither_pygame_nor_shapely() -> None:
    """A simulator without pictures stays light; a fresh interpreter shows it."""
    program = (
        "import sys, gymnasium, pusht_env\n"
        "env = gymnasium.make('pusht_env/PushT-v0')\n"
        "env.reset(seed=0); env.step([1, 2])\n"
        "assert not {'pygame', 'shapely'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
