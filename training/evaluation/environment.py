"""Any gymnasium environment as a task sees it: vectors in the task's order, pictures, one reward, one success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policy.task import Task
from policy.task_parts import Part
from training.pusht.task import difference_from_pusht, is_pusht_seen

PUSHT = "pusht_env:pusht_env/PushT-v0"
"""The environment of the task pusht: what `EnvironmentConfig.id` is where none is given."""

SEEN: Mapping[str, str] = {"camera": "pixels", "pusher": "agent_pos"}
"""What that environment calls the parts of the task pusht_image, with ``obs_type=pixels_agent_pos``."""

SUCCESS_KEYS = ("is_success", "success")
TERMINATED = "terminated"


@dataclass(frozen=True)
class EnvironmentConfig:
    """Which environment the episodes are in, and what it calls the parts of a task.

    Attributes:
        id: id of the environment, ``module:Id-v0`` where a module has to be imported first; None for the task's own.
        observation: key of the environment's observation for each part that it calls otherwise.
        success: key of its info that says whether the task is done, ``terminated`` where it says so by terminating;
            None for ``is_success``, or else ``success``.
        options: arguments of the environment.
    """

    id: str | None = None
    observation: dict[str, str] = field(default_factory=dict)
    success: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a control step led to.

    Attributes:
        observation: (O,) the task's vectors, in their units.
        reward: of the step.
        success: whether the task is done.
        terminated, truncated: as the environment says.
    """

    observation: NDArray[np.float64]
    reward: float
    success: bool
    terminated: bool
    truncated: bool

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated or self.success


class Environment:
    """A gymnasium environment whose observations and actions are a task's.

    Success ends an episode, also where the environment itself would go on.

    Args:
        config: which environment.
        task: what is observed and commanded.
        max_steps: control steps after which an episode is truncated; None for no limit.
        frame_size: side in px of the pictures, where the environment lets it be chosen; None for no pictures.

    Attributes:
        pictures: (height, width, 3) uint8 of each picture of the task at the newest observation, by the part's name.

    Raises:
        ValueError: for an environment that does not exist or cannot be made, that does not observe a part of the task,
            or takes other actions. The message names the key.
    """

    def __init__(
        self,
        config: EnvironmentConfig,
        task: Task,
        *,
        max_steps: int | None = None,
        frame_size: int | None = None,
    ) -> None:
        self.task = task
        self.pictures: Mapping[str, NDArray[np.uint8]] = {}
        self._config = config
        self._records = frame_size is not None
        self._held = commanded_positions(task)
        self._id = environment_id(config, task)
        options, mapped = dict(config.options), dict(config.observation)
        if config.id is None:
            options.setdefault("render_size", frame_size or 1)
            if task.images:
                options.setdefault("obs_type", "pixels_agent_pos")
                mapped = {**SEEN, **mapped}
        # Many environments draw what a camera sees in this mode alone.
        draws = frame_size is not None or (config.id is not None and bool(task.images))
        try:
            self._env: gymnasium.Env[Any, Any] = gymnasium.make(
                self._id,
                max_episode_steps=-1 if max_steps is None else max_steps,  # -1: no limit of the id's either
                render_mode="rgb_array" if draws else None,
                disable_env_checker=True,
                **options,
            )
        except Exception as error:  # of any type: another's code runs
            raise ValueError(f"environment {self._id!r} cannot be made: {_reason(error)}") from error
        try:
            self._keys = _observation_keys(self._id, self._env.observation_space, task, mapped=mapped)
            self._space = _action_space(self._id, self._env.action_space, task)
        except ValueError:
            self._env.close()
            raise

    @property
    def records(self) -> bool:
        """Whether it draws pictures."""
        return self._records and self._env.render_mode is not None

    def position(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the commanded numbers (A,) are, by an observation (O,); NaN where the task does not observe them."""
        if self._held is None:
            return np.full(self.task.action_dim, np.nan)
        return observation[self._held]

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Begin the episode of a seed; its first observation (O,).

        Raises:
            ValueError: if the environment fails at that.
        """
        try:
            observation, _ = self._env.reset(seed=seed)
        except Exception as error:  # of any type: another's code runs
            raise ValueError(f"environment {self._id!r} cannot begin an episode: {_reason(error)}") from error
        return self._vector(observation)

    def step(self, action: NDArray[np.float64]) -> Step:
        """One control step with an action (A,), which is moved into the environment's limits.

        Raises:
            ValueError: if the environment does not say whether the task is done.
        """
        inside = np.clip(action, self._space.low.reshape(-1), self._space.high.reshape(-1))
        observation, reward, terminated, truncated, info = self._env.step(inside.reshape(self._space.shape))
        return Step(
            observation=self._vector(observation),
            reward=float(reward),
            success=self._succeeded(info, bool(terminated)),
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def frame(self, upcoming: NDArray[np.float64]) -> NDArray[np.uint8]:
        """A picture (height, width, 3), with the actions (n, A) that are to come where the environment draws them."""
        if hasattr(self._env.unwrapped, "predicted_chunk"):
            self._env.unwrapped.predicted_chunk = upcoming
        frame = self._env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.dtype != np.uint8:
            raise ValueError(f"environment {self._id!r} draws no pictures: recorded_episodes must be 0")
        return frame

    def close(self) -> None:
        self._env.close()

    def _vector(self, observation: Any) -> NDArray[np.float64]:
        if self._keys is None:
            return np.asarray(observation, dtype=np.float64).reshape(-1)
        self.pictures = {
            part.name: np.asarray(observation[self._keys[part.name]]) for part in self.task.images
        }
        parts = [
            np.asarray(observation[self._keys[part.name]], dtype=np.float64).reshape(-1)
            for part in self.task.vectors
        ]
        return np.concatenate([np.zeros(0), *parts])

    def _succeeded(self, info: Mapping[str, Any], terminated: bool) -> bool:
        wanted = SUCCESS_KEYS if self._config.success is None else (self._config.success,)
        for key in wanted:
            if key in info:
                return bool(info[key])
        if wanted == (TERMINATED,):
            return terminated
        raise ValueError(
            f"info of environment {self._id!r} has no {' nor '.join(wanted)} to say whether the task is done: "
            f"environment.success=… names another key, {TERMINATED} one that ends with success alone; "
            f"it has {', '.join(map(str, info)) or 'none'}"
        )


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def environment_id(config: EnvironmentConfig, task: Task) -> str:
    """The id of the environment that is meant.

    Raises:
        ValueError: if none is given and the task has none of its own.
    """
    if config.id is not None:
        return config.id
    if (difference := difference_from_pusht(task)) and not is_pusht_seen(task):
        raise ValueError(
            f"task {task.name!r} has no environment of its own: environment.id=… names one; "
            f"it is not PushT ({difference})"
        )
    return PUSHT


def commanded_positions(task: Task) -> list[int] | None:
    """Where in an observation the commanded numbers are, by their names; None if one is not observed."""
    observed = [name for part in task.vectors for name in part.names]
    if any(observed.count(name) != 1 for name in task.action.names):
        return None
    return [observed.index(name) for name in task.action.names]


def _observation_keys(
    name: str, space: spaces.Space[Any], task: Task, *, mapped: Mapping[str, str]
) -> dict[str, str] | None:
    """The key of an observation for each of the task's parts; None for one that is a vector as a whole."""
    parts = [part.name for part in task.observation]
    for unknown in sorted(mapped.keys() - set(parts)):
        raise ValueError(
            f"environment.observation.{unknown}: the task observes no {unknown!r}, but {', '.join(parts)}"
        )
    if not isinstance(space, spaces.Dict):
        if task.images:
            raise ValueError(
                f"environment {name!r} observes {space}, but the task has the parts {', '.join(parts)}: needed is "
                "a dict of them"
            )
        if mapped:
            raise ValueError(
                f"environment.observation is for a dict, but environment {name!r} observes {space}"
            )
        _check_numbers(
            f"environment {name!r} observes", space, "the task's parts need", size=task.observation_dim
        )
        return None
    keys = {}
    for part in task.observation:
        key = mapped.get(part.name, part.name)
        if key not in space.spaces:
            raise ValueError(
                f"environment {name!r} observes no {key!r}, but {', '.join(space.spaces)}: "
                f"environment.observation.{part.name}=… names which one the part {part.name!r} is"
            )
        keys[part.name] = key
        found, wanting = f"{key!r} of environment {name!r} is", f"the part {part.name!r} needs"
        if isinstance(part, Part):
            _check_numbers(found, space.spaces[key], wanting, size=part.size)
            continue
        given = space.spaces[key]
        if not isinstance(given, spaces.Box) or given.shape != part.shape or given.dtype != np.uint8:
            raise ValueError(f"{found} {given}, but {wanting} a picture {part.shape} of uint8")
    return keys


def _check_numbers(found: str, space: spaces.Space[Any], wanting: str, *, size: int) -> None:
    is_box = isinstance(space, spaces.Box)
    if not is_box or int(np.prod(space.shape or ())) != size:
        shape = space.shape if is_box else space
        raise ValueError(f"{found} {shape}, but {wanting} {size} numbers")


def _action_space(name: str, space: spaces.Space[Any], task: Task) -> spaces.Box:
    _check_numbers(
        f"environment {name!r} takes actions", space, "the task's action needs", size=task.action_dim
    )
    assert isinstance(space, spaces.Box)
    return space
