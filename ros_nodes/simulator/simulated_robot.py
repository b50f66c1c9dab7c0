"""PushT as a robot: the environment behind a clock and a trajectory controller. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pusht_env.env import SUCCESS_COVERAGE, PushTEnv
from pusht_env.physics import CONTROL_HZ
from ros_nodes.commands.trajectory_execution import SECOND, Position, Trajectory, hold

CONTROL_PERIOD = SECOND // CONTROL_HZ
"""Duration of a control step in nanoseconds."""

RESET_JUMP = SECOND
"""How far the clock jumps at a reset, in nanoseconds, so that nobody takes two episodes for one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RobotState:
    """What the robot's sensors say at one time.

    Attributes:
        time: time of the simulation, in nanoseconds.
        seed: seed of the episode's initial state.
        step: number of control steps of the episode so far.
        position: (2,) pusher x, y in px.
        velocity: (2,) velocity of the pusher, mean over the last control step, in px/s.
        keypoints: (9, 2) keypoints of the block in px.
        block_pose: (3,) x, y in px, angle in rad.
        coverage, reward, terminated, truncated: as of the environment.
    """

    time: int
    seed: int
    step: int
    position: tuple[float, float]
    velocity: tuple[float, float]
    keypoints: NDArray[np.float64]
    block_pose: NDArray[np.float64]
    coverage: float
    reward: float
    terminated: bool
    truncated: bool

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class SimulatedRobot:
    """A pusher that follows one trajectory at a time, in control steps of 0.1 s."""

    def __init__(self, seed: int, max_steps: int) -> None:
        self._env = PushTEnv(obs_type="keypoints")
        self._state: RobotState
        self._trajectories: int
        self._max_steps = max_steps
        self._time = RESET_JUMP  # not 0, which in the stamp of a trajectory means "now"
        self._begin(seed)

    @property
    def state(self) -> RobotState:
        return self._state

    @property
    def reset_time(self) -> int:
        """When the episode began, in nanoseconds."""
        return self._reset_time

    @property
    def trajectory(self) -> Trajectory:
        """The running trajectory; after a reset, a hold at the pusher's position."""
        return self._trajectory

    @property
    def trajectories(self) -> int:
        """Number of trajectories that it took on in this episode."""
        return self._trajectories

    @property
    def picture_state(self) -> NDArray[np.float64]:
        """(5,) state of the environment, for pictures."""
        return self._env.state

    def reset(self, seed: int, max_steps: int) -> None:
        """Start an episode, later on the same clock, and hold the position."""
        self._max_steps = max_steps
        self._time += RESET_JUMP
        self._begin(seed)

    def follow(self, trajectory: Trajectory) -> None:
        """Replace the running trajectory from now on."""
        self._trajectory = trajectory
        self._trajectories += 1

    def hold(self) -> None:
        """Stop where the pusher is."""
        self._trajectory = hold(self._state.position, self._time)

    def next_target(self) -> Position:
        """Where the trajectory wants the pusher at the end of the next control step, in px."""
        return self._trajectory.sample(self._time + CONTROL_PERIOD)

    def advance(self, target: Position) -> None:
        """Run one control step towards a target (2,) in px."""
        before = self._state
        observation, reward, terminated, _, info = self._env.step(target)
        self._time += CONTROL_PERIOD
        step = before.step + 1
        x, y = observation[18:].tolist()
        seconds = CONTROL_PERIOD / SECOND
        velocity = (x - before.position[0]) / seconds, (y - before.position[1]) / seconds
        self._state = RobotState(
            time=self._time,
            seed=before.seed,
            step=step,
            position=(x, y),
            velocity=velocity,
            keypoints=observation[:18].reshape(9, 2),
            block_pose=info["block_pose"],
            coverage=info["coverage"],
            reward=reward,
            terminated=terminated,
            truncated=step >= self._max_steps,
        )

    def _begin(self, seed: int) -> None:
        observation, info = self._env.reset(seed=seed)
        x, y = observation[18:].tolist()
        self._state = RobotState(
            time=self._time,
            seed=seed,
            step=0,
            position=(x, y),
            velocity=(0.0, 0.0),
            keypoints=observation[:18].reshape(9, 2),
            block_pose=info["block_pose"],
            coverage=info["coverage"],
            reward=min(info["coverage"] / SUCCESS_COVERAGE, 1.0),
            terminated=False,
            truncated=False,
        )
        self._reset_time = self._time
        self._trajectory = hold((x, y), self._time)
        self._trajectories = 0
