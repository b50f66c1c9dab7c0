"""The arm and its task as a gymnasium environment."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from viperx.scene import ARM, ARM_JOINTS, CUBE_SIDE, FINGERS, TARGET_RADIUS, TIMESTEP, build_model

CONTROL_HZ = 10
JOINTS = (*ARM_JOINTS, "gripper")  # the gripper is the left finger; the right one mirrors it
CLOSED, OPEN = (
    0.021,
    0.057,
)  # positions of the gripper in m; there is no gap, and one of 7.2 cm, between the fingers
LOW = (
    -3.14158,
    -1.85005,
    -1.76278,
    -3.14158,
    -1.8675,
    -3.14158,
    CLOSED,
)  # gym-aloha's limits: rad, gripper in m
HIGH = (3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158, OPEN)
HOME = (0.0, -0.7, 0.8, 0.0, 1.4, 0.0, OPEN)  # rad, gripper in m
LIFTED = 0.02  # m above its place on the table

Observation = dict[str, Any]  # arrays by the names of the parts


class PickPlaceEnv(gym.Env[Observation, ArrayLike]):
    """Put a cube that lies somewhere on the table onto a target that lies somewhere else.

    ## Action space
    `Box` of 7: target positions of the six joints in rad and of the gripper in m, to be reached in one control step of
    0.1 s. Beyond a joint's limits it is moved to the limit.

    ## Observation space
    A `Dict`: `arm` (7,), positions of the six joints in rad and of the gripper in m; `cube` (4,), x, y, z in m and
    yaw in rad; `target` (2,), x, y in m.

    ## Reward
    1 at success. Before it, 0.25 for a cube that is lifted, and up to 0.5 more, the nearer it then is to the target.

    ## Starting state
    Cube, target and arm are drawn from the seed: both in a ring sector in front of the arm, at least 0.12 m apart; each
    joint up to 0.1 rad from its home.

    ## Episode end
    Success: the cube lies on the table within 3 cm of the target's centre, and the open gripper has left it.
    `gymnasium.make` truncates after 150 steps, or as many as its `max_episode_steps`.

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
        self._joints = [self._model.joint(f"{ARM}/{name}").qposadr[0] for name in (*ARM_JOINTS, *FINGERS)]
        self._cube = self._model.joint("cube").qposadr[0]
        self.action_space = gym.spaces.Box(np.array(LOW), np.array(HIGH), dtype=np.float64)
        self.observation_space = gym.spaces.Dict(
            {
                name: gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
                for name, size in (("arm", len(JOINTS)), ("cube", 4), ("target", 2))
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        random = self.np_random
        arm = np.array(HOME)
        arm[: len(ARM_JOINTS)] += random.uniform(-0.1, 0.1, len(ARM_JOINTS))
        cube, target = _place(random), _place(random)
        while np.linalg.norm(cube - target) < 0.12:
            target = _place(random)
        yaw = random.uniform(-math.pi / 6, math.pi / 6)
        self._data.qpos[self._joints] = [*arm, -arm[-1]]
        self._data.qpos[self._cube :][:7] = [
            *cube,
            CUBE_SIDE / 2,
            math.cos(yaw / 2),
            0.0,
            0.0,
            math.sin(yaw / 2),
        ]
        self._data.mocap_pos[0] = [*target, 0.0]
        self._target = target
        self._command = arm
        mujoco.mj_forward(self._model, self._data)
        return self._observation(), {"is_success": False}

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (len(JOINTS),) or not np.isfinite(command).all():
            raise ValueError(f"action must be {len(JOINTS)} finite joint positions, got {action!r:.200}")
        command = np.clip(command, LOW, HIGH)
        substeps = round(1 / (CONTROL_HZ * TIMESTEP))
        # As a joint trajectory controller does: a straight line from target to target.
        for substep in range(1, substeps + 1):
            at = self._command + (command - self._command) * (substep / substeps)
            self._data.ctrl[:] = [*at, -at[-1]]
            mujoco.mj_step(self._model, self._data)
        self._command = command
        observation = self._observation()
        success = is_placed(observation)
        return (
            observation,
            1.0 if success else _progress(observation),
            success,
            False,
            {"is_success": success},
        )

    def render(self) -> NDArray[np.uint8] | None:
        if self.render_mode is None:
            return None
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._model, self.render_size, self.render_size)
        self._renderer.update_scene(self._data, "scene")
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observation(self) -> Observation:
        qpos = self._data.qpos
        x, y, z, qw, qx, qy, qz = qpos[self._cube :][:7].tolist()
        yaw = math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
        return {
            "arm": qpos[self._joints[: len(JOINTS)]].copy(),
            "cube": np.array([x, y, z, yaw]),
            "target": self._target.copy(),
        }


def is_placed(observation: Observation) -> bool:
    """Whether the cube lies near the target's centre, let go."""
    x, y, z, _ = observation["cube"]
    near = math.dist((x, y), observation["target"]) < 0.03
    return near and z < CUBE_SIDE / 2 + 0.003 and observation["arm"][-1] > 0.048


def _progress(observation: Observation) -> float:
    x, y, z, _ = observation["cube"]
    if z < CUBE_SIDE / 2 + LIFTED:
        return 0.0
    return 0.25 + 0.5 * math.exp(-math.dist((x, y), observation["target"]) / (2 * TARGET_RADIUS))


def _place(random: np.random.Generator) -> NDArray[np.float64]:
    """A place (2,) on the table that the arm reaches from above."""
    radius, angle = random.uniform(0.28, 0.42), random.uniform(-0.6, 0.6)
    return np.array([radius * math.cos(angle), radius * math.sin(angle)])
