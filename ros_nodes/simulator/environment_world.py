"""Any gymnasium environment as a robot's world, if it observes the joints that it is commanded. Knows no ROS."""

from __future__ import annotations

import numpy as np

from policy.robot.times import SECOND
from policy.task import Task
from ros_nodes.commands.trajectory_execution import Position
from ros_nodes.simulator.simulated_robot import Moment
from training.evaluation.environment import Environment, EnvironmentConfig, Step, commanded_positions


class EnvironmentWorld:
    """See `World`; a moment's scene is the observation (O,). After the end of an episode nothing moves.

    Args:
        config: which environment.
        task: what is observed and commanded; the joints are named like the numbers of its action.

    Raises:
        ValueError: for an environment that does not fit the task, or a task that does not observe its joints.
    """

    def __init__(self, config: EnvironmentConfig, task: Task) -> None:
        observed = commanded_positions(task)
        if observed is None:
            raise ValueError(
                f"task {task.name!r} does not observe all joints that it commands ({', '.join(task.action.names)}), "
                "by which the simulator knows where they are"
            )
        self.joints = task.action.names
        self.period = round(SECOND / task.rate)
        self._observed = observed
        self._environment = Environment(config, task)
        self._last: Moment

    def reset(self, seed: int) -> Moment:
        observation = self._environment.reset(seed)
        return self._see(Step(observation, reward=0.0, success=False, terminated=False, truncated=False))

    def step(self, target: Position) -> Moment:
        if self._last.terminated:
            return self._last
        return self._see(self._environment.step(np.array(target)))

    def _see(self, step: Step) -> Moment:
        self._last = Moment(
            position=tuple(step.observation[self._observed].tolist()),
            reward=step.reward,
            success=step.success,
            terminated=step.ended,
            scene=step.observation,
        )
        return self._last
