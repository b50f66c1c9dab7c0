"""An environment of another task than PushT, in plain Python: `slider_env:Slider-v0`, and its task."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register

from policy.task import Command, Part, Task

NAMES, UNITS = ("a", "b", "c"), ("rad", "rad", "rad")
TASK = Task(
    name="slide",
    rate=5,
    observation=(
        Part(name="goal", names=("goal_a", "goal_b", "goal_c"), units=UNITS),
        Part(name="arm", names=NAMES, units=UNITS),
    ),
    action=Command(names=NAMES, units=UNITS, lower=(-1.0,) * 3, upper=(1.0,) * 3),
)


class Slider(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Three joints that go where they are sent, at most 0.5 in a step; done where all are within 0.05 of a goal."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, render_mode: str | None = None, success_key: str | None = "is_success", ends: bool = True
    ) -> None:
        self.render_mode = render_mode
        self._success_key, self._ends = success_key, ends
        self.observation_space = gymnasium.spaces.Dict(
            {
                "goal_position": gymnasium.spaces.Box(-1.0, 1.0, (3,)),
                "arm": gymnasium.spaces.Box(-1.0, 1.0, (3,)),
                "camera": gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
                "phase": gymnasium.spaces.Discrete(3),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._joints = np.zeros(3)
        self._goal = self.np_random.uniform(-0.9, 0.9, 3)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert action.shape == (3,)
        assert (np.abs(action) <= 1).all()
        self._joints = self._joints + np.clip(action - self._joints, -0.5, 0.5)
        far = float(np.abs(self._joints - self._goal).max())
        success = far < 0.05
        info = {} if self._success_key is None else {self._success_key: success}
        return self._observation(), -far, success and self._ends, False, info

    def render(self) -> np.ndarray:
        frame = np.zeros((32, 48, 3), np.uint8)
        frame[:, : int(24 * (1 + self._joints[0]))] = 255
        return frame

    def _observation(self) -> dict[str, Any]:
        camera = np.zeros((4, 4, 3), np.uint8)
        return {"arm": self._joints, "goal_position": self._goal, "camera": camera, "phase": 0}


register(id="Slider-v0", entry_point=Slider, max_episode_steps=50)
