"""What an episode runner hears of one episode, and when it gives up. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation.episode import Episode


class EpisodeLog:
    """Collects an episode's rewards, from its first status on.

    Args:
        seed: seed of the episode.
        timeout: seconds without a control step (of wall time), or without a new trajectory (of simulation
            time, which may run slower), after which the episode has failed.
        now: wall time in seconds.
        period: duration of a control step in seconds.
    """

    def __init__(self, seed: int, timeout: float, now: float, *, period: float) -> None:
        self.seed = seed
        self.ended = False
        self._observed: dict[int, float] = {}
        self._answered: dict[int, float] = {}
        self._timeout = timeout
        self._period = period
        self._success = False
        self._rewards: list[float] = []
        self._begun = False
        self._last_heard = now
        self._trajectories = 0
        self._last_trajectory_step = 0

    def hear(self, status: Sequence[float], now: float) -> None:
        """Take in a status: seed, step, reward, success, terminated, truncated, trajectories.

        Raises:
            ValueError: if control steps are missing between it and the one before.
        """
        seed, step, reward, success, terminated, truncated, trajectories = status
        if self.ended or seed != self.seed:
            return
        if step == 0:
            self._begun = True
            self._last_heard = now
        # Until its first status, what comes is the rest of the episode before.
        if not self._begun or step == 0:
            return
        if step != len(self._rewards) + 1:
            raise ValueError(f"heard of step {step:g} after step {len(self._rewards)}")
        self._rewards.append(reward)
        self._last_heard = now
        if trajectories != self._trajectories:
            self._trajectories = int(trajectories)
            self._last_trajectory_step = int(step)
        self._success = bool(success)
        self.ended = bool(terminated or truncated)

    def observe(self, stamp: int, now: float) -> None:
        """Take in when the observation with a stamp arrived; only its first time counts."""
        self._observed.setdefault(stamp, now)

    def answer(self, stamp: int, now: float) -> None:
        """Take in when the chunk arrived that is based on the observation with a stamp."""
        if not self.ended:
            self._answered.setdefault(stamp, now)

    def failure(self, now: float) -> str | None:
        """Why the episode has failed, if it has."""
        if self.ended:
            return None if self._trajectories else "no chunk came"
        steps = len(self._rewards)
        if now - self._last_heard > self._timeout:
            return f"no control step for {self._timeout:g} s after step {steps}"
        if (steps - self._last_trajectory_step) * self._period > self._timeout:
            return f"no chunk for {self._timeout:g} s after step {self._last_trajectory_step}"
        return None

    def episode(self) -> Episode:
        """The episode so far; the times of its chunks are latencies, from observation to chunk."""
        # A chunk may overtake its observation on the way here, as each has a topic of its own.
        seconds = (
            max(0.0, answered - self._observed[stamp])
            for stamp, answered in self._answered.items()
            if stamp in self._observed
        )
        return Episode(
            seed=self.seed,
            rewards=np.array(self._rewards),
            success=self._success,
            chunk_seconds=tuple(seconds),
        )
