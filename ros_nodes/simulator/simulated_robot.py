"""A world as a robot: behind a clock and a trajectory controller. Knows no ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from policy.robot.times import SECOND
from ros_nodes.commands.trajectory_execution import Position, Trajectory, hold

RESET_JUMP = SECOND
"""How far the clock jumps at a reset, in nanoseconds, so that nobody takes two episodes for one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Moment:
    """What there is to see of a world before an episode, or after a control step.

    Attributes:
        position: (J,) of the joints.
        reward: of the control step.
        success, terminated: whether the task is done, and whether the episode has ended.
        scene: what the world's own sensors see.
    """

    position: Position
    reward: float
    success: bool
    terminated: bool
    scene: Any


class World(Protocol):
    """What a robot acts in, in control steps.

    Attributes:
        joints: (J,) names.
        period: duration of a control step in nanoseconds.
    """

    joints: tuple[str, ...]
    period: int

    def reset(self, seed: int) -> Moment:
        """Begin the episode of a seed."""

    def step(self, target: Position) -> Moment:
        """One control step towards a target (J,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RobotState:
    """What the robot's sensors say at one time.

    Attributes:
        time: time of the simulation, in nanoseconds.
        seed: seed of the episode's initial state.
        step: number of control steps of the episode so far.
        position: (J,) of the joints.
        velocity: (J,) of the joints, mean over the last control step, per second.
        reward, success, terminated, scene: as of the world.
        truncated: whether the episode was as long as it may be.
    """

    time: int
    seed: int
    step: int
    position: Position
    velocity: Position
    reward: float
    success: bool
    terminated: bool
    truncated: bool
    scene: Any

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class SimulatedRobot:
    """A robot that follows one trajectory at a time, in control steps of a world."""

    def __init__(self, world: World, seed: int, max_steps: int) -> None:
        self._world = world
        self._state: RobotState
        self._trajectories: int
        self._max_steps = max_steps
        self._time = RESET_JUMP  # not 0, which in the stamp of a trajectory means "now"
        self._begin(seed)

    @property
    def joints(self) -> tuple[str, ...]:
        return self._world.joints

    @property
    def period(self) -> int:
        """Duration of a control step in nanoseconds."""
        return self._world.period

    @property
    def state(self) -> RobotState:
        return self._state

    @property
    def reset_time(self) -> int:
        """When the episode began, in nanoseconds."""
        return self._reset_time

    @property
    def trajectory(self) -> Trajectory:
        """The running trajectory; after a reset, a hold at the robot's position."""
        return self._trajectory

    @property
    def trajectories(self) -> int:
        """Number of trajectories that it took on in this episode."""
        return self._trajectories

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
        """Stop where the robot is."""
        self._trajectory = hold(self._state.position, self._time)

    def next_target(self) -> Position:
        """Where the trajectory wants the joints (J,) at the end of the next control step."""
        return self._trajectory.sample(self._time + self.period)

    def advance(self, target: Position) -> None:
        """Run one control step towards a target (J,)."""
        before = self._state
        moment = self._world.step(target)
        self._time += self.period
        step = before.step + 1
        seconds = self.period / SECOND
        velocity = tuple((b - a) / seconds for a, b in zip(before.position, moment.position, strict=True))
        self._state = RobotState(
            time=self._time,
            seed=before.seed,
            step=step,
            velocity=velocity,
            truncated=step >= self._max_steps,
            **_seen(moment),
        )

    def _begin(self, seed: int) -> None:
        moment = self._world.reset(seed)
        self._state = RobotState(
            time=self._time,
            seed=seed,
            step=0,
            velocity=(0.0,) * len(moment.position),
            truncated=False,
            **_seen(moment),
        )
        self._reset_time = self._time
        self._trajectory = hold(moment.position, self._time)
        self._trajectories = 0


def _seen(moment: Moment) -> dict[str, Any]:
    return {name: getattr(moment, name) for name in Moment.__dataclass_fields__}
