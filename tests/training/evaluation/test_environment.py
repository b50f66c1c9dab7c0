from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from policy.task import Command
from policy.task_parts import ImagePart
from slider_env import TASK, Slider
from training.data.task_file import load_task
from training.evaluation.environment import PUSHT, Environment, EnvironmentConfig, commanded_positions

SLIDER = EnvironmentConfig("slider_env:Slider-v0", {"goal": "goal_position"})


def slider(max_steps: int = 50, frame_size: int | None = None, **changes: Any) -> Environment:
    return Environment(replace(SLIDER, **changes), TASK, max_steps=max_steps, frame_size=frame_size)


def test_observations_are_the_parts_in_the_tasks_order() -> None:
    environment = slider()
    observation = environment.reset(seed=3)
    goal = np.random.default_rng(np.random.PCG64(3)).uniform(-0.9, 0.9, 3)
    assert observation.tolist() == [*goal, 0.0, 0.0, 0.0]

    step = environment.step(np.array([0.25, -0.25, 0.0]))
    assert step.observation.tolist() == [*goal, 0.25, -0.25, 0.0]
    assert step.reward == -np.abs(goal - [0.25, -0.25, 0.0]).max()
    assert not step.success


def test_actions_are_moved_into_the_environments_limits() -> None:
    environment = slider()
    environment.reset(seed=0)
    for _ in range(3):
        step = environment.step(np.array([5.0, -5.0, 0.0]))
    assert step.observation[3:].tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"options": {"success_key": "success"}},
        {"options": {"success_key": "solved"}, "success": "solved"},
        {"options": {"success_key": None}, "success": "terminated"},
    ],
)
def test_success_is_what_the_environment_calls_so(changes: dict[str, Any]) -> None:
    environment = slider(**changes)
    goal = environment.reset(seed=1)[:3]
    first, second = environment.step(goal), environment.step(goal)
    assert [first.success, second.success] == [False, True]
    assert second.terminated


def test_success_ends_an_episode_that_would_go_on() -> None:
    environment = slider(options={"ends": False})
    goal = environment.reset(seed=1)[:3]
    environment.step(goal)
    step = environment.step(goal)
    assert step.success
    assert step.ended


def test_an_episode_is_cut_after_its_last_step() -> None:
    environment = slider(max_steps=3)
    environment.reset(seed=0)
    assert [environment.step(np.zeros(3)).truncated for _ in range(3)] == [False, False, True]


def test_pictures_are_the_environments() -> None:
    environment = slider(frame_size=64)
    environment.reset(seed=0)
    assert environment.frame(np.zeros((0, 3))).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"id": "Slidr-v0"}, "environment 'Slidr-v0' cannot be made: NameNotFound: "),
        (
            {"id": "no_module:Slider-v0"},
            "environment 'no_module:Slider-v0' cannot be made: ModuleNotFoundError: ",
        ),
        ({"options": {"colour": 1}}, "environment 'slider_env:Slider-v0' cannot be made: TypeError: "),
        (
            {"observation": {}},
            "environment 'slider_env:Slider-v0' observes no 'goal', but arm, camera, goal_position, phase: "
            "environment.observation.goal=… names which one the part 'goal' is",
        ),
        (
            {"observation": {"goal": "goal_position", "wrist": "arm"}},
            "environment.observation.wrist: the task observes no 'wrist', but goal, arm",
        ),
        (
            {"observation": {"goal": "camera"}},
            "'camera' of environment 'slider_env:Slider-v0' is (4, 4, 3), but the part 'goal' needs 3 numbers",
        ),
        (
            {"observation": {"goal": "phase"}},
            "'phase' of environment 'slider_env:Slider-v0' is Discrete(3), but the part 'goal' needs 3 numbers",
        ),
        (
            {"id": None},
            "task 'slide' has no environment of its own: environment.id=… names one; it is not PushT (",
        ),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole line is checked
        slider(**changes)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_actions_of_another_size_are_refused() -> None:
    task = replace(TASK, action=Command(names=("a",), units=("rad",), lower=(None,), upper=(None,)))
    line = r"environment 'slider_env:Slider-v0' takes actions \(3,\), but the task's action needs 1 numbers"
    with pytest.raises(ValueError, match=line):
        Environment(SLIDER, task, max_steps=1)


def test_an_environment_that_says_nothing_of_success_is_refused() -> None:
    environment = slider(options={"success_key": None})
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="has no is_success nor success to say whether the task is done"):
        environment.step(np.zeros(3))


def test_an_environment_without_pictures_is_refused_when_one_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Slider, "render", lambda env: None)
    environment = slider(frame_size=64)
    environment.reset(seed=0)
    with pytest.raises(ValueError, match="draws no pictures: recorded_episodes must be 0"):
        environment.frame(np.zeros((0, 3)))


def test_what_a_camera_sees_is_drawn_also_where_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Slider._observation

    def observed(env: Slider) -> dict[str, Any]:
        if env.render_mode is None:  # as gym-pusht
            raise ValueError(env.render_mode)
        return drawn(env)

    monkeypatch.setattr(Slider, "_observation", observed)
    blind = slider()
    with pytest.raises(ValueError, match="'slider_env:Slider-v0' cannot begin an episode: ValueError: None"):
        blind.reset(seed=0)
    camera = ImagePart(name="camera", height=4, width=4)
    seeing = replace(TASK, observation=(*TASK.observation, camera))
    environment = Environment(SLIDER, seeing, max_steps=5)
    environment.reset(seed=0)
    assert (environment.pictures["camera"].shape, environment.records) == ((4, 4, 3), False)


def test_a_vector_is_all_parts_in_their_order() -> None:
    env = gymnasium.make(PUSHT)
    task = load_task("pusht").task
    environment = Environment(EnvironmentConfig(), task, max_steps=5)
    observation = environment.reset(seed=7)
    assert observation.tolist() == env.reset(seed=7)[0].tolist()
    assert environment.position(observation).tolist() == observation[18:].tolist()
    less = replace(task, observation=task.observation[:1])
    with pytest.raises(ValueError, match=r"observes \(20,\), but the task's parts need 18 numbers"):
        Environment(EnvironmentConfig(PUSHT), less, max_steps=5)
    with pytest.raises(
        ValueError, match=r"environment.observation is for a dict, but environment 'pusht_env"
    ):
        Environment(EnvironmentConfig(observation={"pusher": "agent"}), task, max_steps=5)


def test_commanded_joints_are_found_among_the_observed_ones() -> None:
    assert commanded_positions(TASK) == [3, 4, 5]
    assert commanded_positions(replace(TASK, observation=TASK.observation[:1])) is None
