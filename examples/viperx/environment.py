"""The arm and its task as a gymnasium environment."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from viperx.scene import ARM, ARM_JOINTS, BUTTON_TRAVEL, BUTTONS, FINGERS, TIMESTEP, build_model

CONTROL_HZ = 10
CLOSED = 0.021  # position of a finger in m
LOW = (-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158)  # gym-aloha's limits in rad
HIGH = (3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158)
HOME = (0.0, -0.7, 0.8, 0.0, 1.4, 0.0)  # rad

Observation = dict[str, Any]  # arrays by the names of the parts


class PressButtonsEnv(gym.Env[Observation, ArrayLike]):
    """Press two buttons that lie somewhere on the table, the first one first, with the shut gripper.

    ## Action space
    `Box` of 6: target positions of the joints in rad, to be reached in one control step of 0.1 s. Beyond a joint's
    limits it is moved to the limit.

    ## Observation space
    A `Dict`: `arm` (6,), positions of the joints in rad; `first` and `second` (2,), x, y of the buttons in m; `lit`
    (1,), 1 once the first one was pressed, else 0.

    ## Reward
    0.5 once the first button was pressed, 1 when the second one is pressed after it.

    ## Starting state
    Buttons and arm are drawn from the seed: both in a ring sector in front of the arm, at least 0.15 m apart; each
    joint up to 0.1 rad from its home.

    ## Episode end
    Success: the second button is pressed after the first one. `gymnasium.make` truncates after 100 steps, or as many as
    its `max_episode_steps`.

    Args:
        render_mode: `"rgb_array"`, or `None`.
        render_size: height of a picture in px; it is as wide.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, render_size: int = 256) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.render_mode = render_mode
        self.render_size = render_size
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        self._renderer: mujoco.Renderer | None = None
        self._joints = [self._model.joint(f"{ARM}/{name}").qposadr[0] for name in ARM_JOINTS]
        self._fingers = [self._model.joint(f"{ARM}/{name}").qposadr[0] for name in FINGERS]
        self._buttons = {name: self._model.joint(name).qposadr[0] for name in BUTTONS}
        self.action_space = gym.spaces.Box(np.array(LOW), np.array(HIGH), dtype=np.float64)
        self.observation_space: gym.spaces.Dict = gym.spaces.Dict(
            {
                name: gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
                for name, size in (("arm", len(ARM_JOINTS)), ("first", 2), ("second", 2), ("lit", 1))
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        random = self.np_random
        arm = np.array(HOME) + random.uniform(-0.1, 0.1, len(HOME))
        first, second = _place(random), _place(random)
        while np.linalg.norm(first - second) < 0.15:
            second = _place(random)
        self._places = {"first": first, "second": second}
        for name, place in self._places.items():
            self._model.body(name).pos[:2] = place
        self._data.qpos[self._joints] = arm
        self._data.qpos[self._fingers] = CLOSED, -CLOSED
        self._lit = False
        self._command = arm
        mujoco.mj_forward(self._model, self._data)
        return self._observation(), {"is_success": False}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (len(ARM_JOINTS),) or not np.isfinite(command).all():
            raise ValueError(f"action must be {len(ARM_JOINTS)} finite joint positions, got {action!r:.200}")
        command = np.clip(command, LOW, HIGH)
        substeps = round(1 / (CONTROL_HZ * TIMESTEP))
        success = False
        # As a joint trajectory controller does: a straight line from target to target.
        for substep in range(1, substeps + 1):
            at = self._command + (command - self._command) * (substep / substeps)
            self._data.ctrl[:] = [*at, CLOSED, -CLOSED]
            mujoco.mj_step(self._model, self._data)
            success = success or (self._lit and self._is_pressed("second"))
            self._lit = self._lit or self._is_pressed("first")
        self._command = command
        reward = 1.0 if success else 0.5 * self._lit
        return self._observation(), reward, success, False, {"is_success": success}

    def render(self) -> NDArray[np.uint8] | None:
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, self.render_size, self.render_size)
        for name, color in BUTTONS.items():
            lit = self._lit and name == "first"
            self._model.geom(name).rgba = (
                (1.0, 0.85, 0.2, 1.0) if lit else [float(value) for value in color.split()]
            )
        self._renderer.update_scene(self._data, "scene")
        frame: NDArray[np.uint8] = self._renderer.render()
        return frame

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _is_pressed(self, button: str) -> bool:
        return bool(self._data.qpos[self._buttons[button]] < -BUTTON_TRAVEL / 2)

    def _observation(self) -> Observation:
        return {
            "arm": self._data.qpos[self._joints].copy(),
            **{name: place.copy() for name, place in self._places.items()},
            "lit": np.array([float(self._lit)]),
        }


def _place(random: np.random.Generator) -> NDArray[np.float64]:
    """A place (2,) on the table that the arm reaches from above."""
    radius, angle = random.uniform(0.28, 0.42), random.uniform(-0.6, 0.6)
    return np.array([radius * math.cos(angle), radius * math.sin(angle)])
