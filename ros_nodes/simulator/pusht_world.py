"""PushT as a robot's world: the pusher's x and y are its joints. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy.robot.times import SECOND
from pusht_env.env import SUCCESS_COVERAGE, PushTEnv
from pusht_env.physics import CONTROL_HZ
from ros_nodes.commands.trajectory_execution import Position
from ros_nodes.simulator.simulated_robot import Moment


@dataclass(frozen=True, eq=False, kw_only=True)
class PushTScene:
    """What PushT's sensors see beside the pusher.

    Attributes:
        keypoints: (9, 2) keypoints of the block in px.
        block_pose: (3,) x, y in px, angle in rad.
        coverage: as of the environment.
        picture: (5,) state of the environment, for pictures.
    """

    keypoints: NDArray[np.float64]
    block_pose: NDArray[np.float64]
    coverage: float
    picture: NDArray[np.float64]


class PushTWorld:
    """See `World`; positions are px."""

    joints: tuple[str, ...] = ("pusher_x", "pusher_y")
    period: int = SECOND // CONTROL_HZ

    def __init__(self) -> None:
        self._env = PushTEnv(obs_type="keypoints")

    def reset(self, seed: int) -> Moment:
        observation, info = self._env.reset(seed=seed)
        return self._moment(
            observation, info, reward=min(info["coverage"] / SUCCESS_COVERAGE, 1.0), ended=False
        )

    def step(self, target: Position) -> Moment:
        observation, reward, terminated, _, info = self._env.step(target)
        return self._moment(observation, info, reward=reward, ended=terminated)

    def _moment(
        self, observation: NDArray[np.float64], info: dict[str, Any], *, reward: float, ended: bool
    ) -> Moment:
        x, y = observation[18:].tolist()
        scene = PushTScene(
            keypoints=observation[:18].reshape(9, 2),
            block_pose=info["block_pose"],
            coverage=info["coverage"],
            picture=self._env.state,
        )
        return Moment(position=(x, y), reward=reward, success=ended, terminated=ended, scene=scene)
