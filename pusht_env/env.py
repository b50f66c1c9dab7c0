"""PushT as a gymnasium environment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pusht_env.block import coverage, keypoint_observation
from pusht_env.physics import CONTROL_HZ, WORKSPACE_SIZE, PushTPhysics

if TYPE_CHECKING:
    from pusht_env.render import Window

ObsType = Literal["keypoints", "state", "pixels", "pixels_agent_pos"]
RenderMode = Literal["rgb_array", "human"]
Observation = Any  # an array, or for `"pixels_agent_pos"` a dict of them

SUCCESS_COVERAGE = 0.95
PIXELS_SIZE = 96
"""Side in px of the image observation."""

OBSERVATION_MARGIN = 256.0
"""Width of the border that the observation space has around the workspace, in px.

The pusher is stronger than the walls and can press the block through them.
"""


class PushTEnv(gym.Env[Observation, ArrayLike]):
    """Push a T-shaped block onto its goal with a round pusher (Florence et al., 2021; Chi et al., 2023).

    ## Action space
    `Box(0, 512, (2,), float32)`: target position x, y of the pusher in px, for one control step of 0.1 s. The
    y axis points down. A target outside the workspace is moved to its edge.

    ## Observation space
    By `obs_type`:

    - `"keypoints"`: 20 floats in px: x, y of 9 points on the block, then of the pusher.
    - `"state"`: 5 floats: pusher x, y and block x, y in px, block angle in rad in [0, 2π).
    - `"pixels"`: the picture, `(96, 96, 3)` uint8, as in the published demonstrations.
    - `"pixels_agent_pos"`: a dict of the picture, `"pixels"`, and x, y of the pusher in px, `"agent_pos"`.

    ## Reward
    `clip(coverage / 0.95, 0, 1)`, where coverage is the share of the goal's area that the block covers.

    ## Starting state
    Diffusion Policy's for the seed given to `reset`, and for one drawn from the environment's own generator
    when none is given. `reset(options={"state": ...})` starts at rest from any state (5 floats, as observed).

    ## Episode end
    Terminated when coverage is above 0.95. `gymnasium.make` truncates after 200 steps, or as many as its
    `max_episode_steps`.

    ## Info
    `coverage`, `is_success`, `contacts` (contact points per physics step), `block_pose` `(3,)` and
    `pusher_position` `(2,)`.

    Args:
        obs_type: See above.
        render_mode: `"rgb_array"`, `"human"` for a window, or `None`.
        render_size: Side in px of what `render` returns or shows.

    Raises:
        ValueError: An argument is not one of those above.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium declares it so)
        "render_modes": list(get_args(RenderMode)),
        "render_fps": CONTROL_HZ,
    }

    predicted_chunk: NDArray[np.floating] | None
    """Predicted actions `(H, 2)` in px to draw with the next frames, or `None`; `reset` clears it."""

    def __init__(
        self,
        obs_type: ObsType = "keypoints",
        render_mode: RenderMode | None = None,
        render_size: int = 512,
    ) -> None:
        if obs_type not in get_args(ObsType):
            raise ValueError(f"obs_type must be one of {get_args(ObsType)}, got {obs_type!r}")
        if render_mode is not None and render_mode not in get_args(RenderMode):
            raise ValueError(
                f"render_mode must be None or one of {get_args(RenderMode)}, got {render_mode!r}"
            )
        if render_size < 1:
            raise ValueError(f"render_size must be at least 1 px, got {render_size}")
        self.obs_type = obs_type
        self.render_mode = render_mode
        self.render_size = render_size
        self.action_space = gym.spaces.Box(0.0, WORKSPACE_SIZE, (2,), np.float32)
        self.observation_space = _observation_space(obs_type)
        self.predicted_chunk = None
        self._physics: PushTPhysics | None = None
        self._target: tuple[float, float] | None = None
        self._window: Window | None = None

    @property
    def state(self) -> NDArray[np.float64]:
        """Pusher x, y and block x, y in px, block angle in rad in [0, 2π), `(5,)`.

        Setting it puts both at rest there, without an observation or a change of the episode's step count.

        Raises:
            ValueError: The new state has another shape, is not finite or lies outside the workspace.
            gymnasium.error.ResetNeeded: Read before the first `reset`.
        """
        physics = self._episode()
        return np.array([*physics.pusher_position, *physics.block_pose])

    @state.setter
    def state(self, state: ArrayLike) -> None:
        self._physics = PushTPhysics.from_state(_checked_state(state))
        self._target = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; see the class for what `seed` and `options` decide.

        Raises:
            ValueError: `seed` is not in 0 to 2³² − 1, an option is unknown, or `options["state"]` is not a
                state inside the workspace.
        """
        if seed is not None and not 0 <= seed < 2**32:
            raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}")
        options = options or {}
        if unknown := sorted(options.keys() - {"state"}):
            raise ValueError(f"reset knows only the option 'state', got {unknown}")
        state = _checked_state(options["state"]) if "state" in options else None

        super().reset(seed=seed)
        if state is not None:
            self._physics = PushTPhysics.from_state(state)
        else:
            self._physics = PushTPhysics.from_seed(
                int(self.np_random.integers(2**32)) if seed is None else seed
            )
        self._target = None
        self.predicted_chunk = None
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info(contacts=0)

    def step(self, action: ArrayLike) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Move the pusher towards `action`, a target position `(2,)` in px, for one control step of 0.1 s.

        Raises:
            ValueError: `action` has another shape or is not finite.
            gymnasium.error.ResetNeeded: Called before the first `reset`.
        """
        physics = self._episode()
        target_x, target_y = _checked_action(action)
        self._target = target_x, target_y
        contacts = physics.advance(target_x, target_y)
        info = self._info(contacts)
        reward = min(info["coverage"] / SUCCESS_COVERAGE, 1.0)
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, info["is_success"], False, info

    def render(self) -> NDArray[np.uint8] | None:
        """The frame `(render_size, render_size, 3)` in mode `"rgb_array"`; in mode `"human"`, show it.

        Raises:
            gymnasium.error.ResetNeeded: Called before the first `reset`.
        """
        if self.render_mode is None:
            gym.logger.warn("render does nothing without a render_mode: pass one to gymnasium.make")
            return None
        # Simulation without pictures, as in training and evaluation, need not load pygame.
        from pusht_env.render import Window, draw_frame

        frame = draw_frame(self.state, self.render_size, target=self._target, chunk=self.predicted_chunk)
        if self.render_mode == "rgb_array":
            return frame
        if self._window is None:
            self._window = Window()
        self._window.show(frame)
        return None

    def close(self) -> None:
        """Close the window of mode `"human"`."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _episode(self) -> PushTPhysics:
        if self._physics is None:
            raise gym.error.ResetNeeded("call reset before reading the state, stepping or rendering")
        return self._physics

    def _observation(self) -> Observation:
        if self.obs_type == "state":
            return self.state
        if self.obs_type in ("pixels", "pixels_agent_pos"):
            from pusht_env.render import draw_frame

            state = self.state
            pixels = draw_frame(state, PIXELS_SIZE)
            return pixels if self.obs_type == "pixels" else {"pixels": pixels, "agent_pos": state[:2]}
        return keypoint_observation(self.state)

    def _info(self, contacts: int) -> dict[str, Any]:
        physics = self._episode()
        block_pose = physics.block_pose
        covered = coverage(block_pose)
        return {
            "coverage": covered,
            "is_success": covered > SUCCESS_COVERAGE,
            "contacts": contacts,
            "block_pose": np.array(block_pose),
            "pusher_position": np.array(physics.pusher_position),
        }


def _observation_space(obs_type: ObsType) -> gym.spaces.Box | gym.spaces.Dict:
    pixels = gym.spaces.Box(0, 255, (PIXELS_SIZE, PIXELS_SIZE, 3), np.uint8)
    if obs_type == "pixels":
        return pixels
    low, high = -OBSERVATION_MARGIN, WORKSPACE_SIZE + OBSERVATION_MARGIN
    if obs_type == "pixels_agent_pos":
        return gym.spaces.Dict({"pixels": pixels, "agent_pos": gym.spaces.Box(low, high, (2,), np.float64)})
    if obs_type == "keypoints":
        return gym.spaces.Box(low, high, (20,), np.float64)
    return gym.spaces.Box(
        np.array([low, low, low, low, 0.0]), np.array([high, high, high, high, math.tau]), dtype=np.float64
    )


def _checked_action(action: ArrayLike) -> tuple[float, float]:
    target = np.asarray(action, dtype=np.float64)
    if target.shape != (2,):
        raise ValueError(
            f"action must have shape (2,): target x, y of the pusher in px, got shape {target.shape}"
        )
    x, y = target.tolist()
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"action must be finite, got {target}")
    return min(max(x, 0.0), WORKSPACE_SIZE), min(max(y, 0.0), WORKSPACE_SIZE)


def _checked_state(state: ArrayLike) -> list[float]:
    values = np.asarray(state, dtype=np.float64)
    if values.shape != (5,):
        raise ValueError(
            f"state must have shape (5,): pusher x, y, block x, y, block angle, got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"state must be finite, got {values}")
    if (values[:4] < 0.0).any() or (values[:4] > WORKSPACE_SIZE).any():
        raise ValueError(
            f"state must be inside the workspace, from 0 to {WORKSPACE_SIZE:g} px, got {values[:4]}"
        )
    return [*values[:4].tolist(), float(values[4] % math.tau)]
