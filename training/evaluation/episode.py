"""One episode in a simulated world that goes on while the policy computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from policy import PolicyConfig, Prediction
from policy.chunk_schedule import ChunkSchedule
from training.evaluation.environment import Environment
from training.evaluation.latency import NS_PER_MS
from training.seeds import combine_seeds

NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class ChunkRecord:
    """One chunk in a world that went on. Its latency is the sum of `start_delay_ms` and `inference_ms`.

    Attributes:
        step: control step of the chunk's newest observation.
        start_delay_ms: time from that observation to the start of the inference.
        inference_ms: time from there to the chunk.
        skipped_points: number of its points that were over on its arrival.
        missed: whether the chunk before it had ended by its arrival.
        jump: mean distance between its targets and those of the chunk before it for the same control steps;
            None for the first chunk, and where they share no step.
    """

    step: int
    start_delay_ms: float
    inference_ms: float
    skipped_points: int
    missed: bool
    jump: float | None


@dataclass(frozen=True)
class Episode:
    """The record of one episode.

    Attributes:
        seed: seed of the initial state.
        rewards: (steps,) reward after each control step.
        success: whether it ended with its task done.
        chunk_seconds: wall time of each policy call; on ROS, of each chunk from its observation on.
        frames: pictures, the initial state first; empty if they were not asked for.
        chunks: chunks that arrived; empty if they were not recorded.
        hold_steps: number of control steps without a target; None if they were not recorded.
        commands: (steps, A) target of each control step; None if they were not recorded.
    """

    seed: int
    rewards: NDArray[np.float64]
    success: bool
    chunk_seconds: tuple[float, ...]
    frames: tuple[NDArray[np.uint8], ...] = ()
    chunks: tuple[ChunkRecord, ...] = ()
    hold_steps: int | None = None
    commands: NDArray[np.float64] | None = None

    @property
    def max_reward(self) -> float:
        return float(self.rewards.max()) if self.steps else 0.0

    @property
    def steps(self) -> int:
        return len(self.rewards)

    def within(self, steps: int) -> Episode:
        """The episode as if it had been cut after its first control steps."""
        success = self.success and self.steps <= steps
        return replace(self, rewards=self.rewards[:steps], success=success)


def hold_share(episodes: Sequence[Episode]) -> float | None:
    """Share of the control steps without a target; None if they were not recorded."""
    held = [episode.hold_steps for episode in episodes if episode.hold_steps is not None]
    return sum(held) / sum(episode.steps for episode in episodes) if len(held) == len(episodes) else None


class RunningEpisode:
    """An episode that has run up to the start of the next inference, or to its end.

    Chunks are scheduled and executed as on ROS in real time (docs/ros.md):

    - One inference runs at a time. It starts from the last observation that leaves enough time, judged by the newest
      inference times.
    - Point i of a chunk is due i control periods after its newest observation. Points that are over when the chunk
      arrives are skipped; a chunk that arrives after its last point is refused.
    - The target of a control step is fixed at the step's start, so that an inference counts to the end of a step.
    - Where a chunk ends before the next one arrives, the robot holds the last target, or follows the rest of the
      horizon on request. Before the first chunk it holds its position.

    Inferences that take no time give synchronous execution: all points of a chunk, then the next chunk.

    Args:
        config: configuration of the policy.
        environment: where the episode is; it is closed at the end.
        seed: seed of the initial state.
        noise_seed: seed of the policy's noises.
        margin_ns: time in ns by which a chunk should arrive earlier than it is needed.
        follow_horizon: whether the robot follows the horizon beyond a chunk until the next chunk arrives.

    Attributes:
        prediction: the last prediction, kept by the owner for a sampler that uses it.
    """

    def __init__(
        self,
        config: PolicyConfig,
        environment: Environment,
        seed: int,
        *,
        noise_seed: int = 0,
        margin_ns: int = 0,
        follow_horizon: bool = False,
    ) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(combine_seeds(noise_seed, seed))
        self.prediction: Prediction | None = None
        self.ended = False
        self._env = environment
        self._period = period = round(NS_PER_S / environment.task.rate)
        observation = environment.reset(seed)
        self._config = config
        self._schedule = ChunkSchedule(
            chunk_ns=config.action_steps * period,
            period_ns=period,
            margin_ns=margin_ns,
            synchronous=False,
            inference_ns=0,
        )
        self._observations = [observation]  # before control step 0, 1, …
        self._pictures = {0: environment.pictures}  # of those that an inference may still need
        self._rewards: list[float] = []
        self._success = False
        self._frames: list[NDArray[np.uint8]] = []
        self._chunk_seconds: list[float] = []
        self._chunks: list[ChunkRecord] = []
        self._hold_steps = 0
        self._commands: list[NDArray[np.float64]] = []
        self._follow_horizon = follow_horizon
        self._targets = environment.position(observation)[None]
        self._targets_begin = -1  # control step of the first target; −1: the target is over, and held
        self._predicted: NDArray[np.float64] | None = None
        self._predicted_step: int | None = None
        self._step = 0
        self._started_ns = 0
        self._record(self._targets[1:])
        self._go_on(0)

    @property
    def steps(self) -> int:
        return len(self._rewards)

    @property
    def executed(self) -> int | None:
        """Control steps from the observations of the last prediction to those of the next; None before the first."""
        return None if self._predicted_step is None else self._step - self._predicted_step

    @property
    def delay(self) -> int:
        """Points of the next chunk that are expected to be over on its arrival."""
        return self._schedule.delay(self._step * self._period, self._started_ns)

    def observations(self) -> NDArray[np.float64]:
        """Vectors (observation_steps, D) of the next inference. Before the episode: its first."""
        return np.stack([self._observations[step] for step in self._newest()])

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """Pictures (observation_steps, height, width, 3) of the next inference, by the part's name."""
        newest = [self._pictures[step] for step in self._newest()]
        return {name: np.stack([pictures[name] for pictures in newest]) for name in newest[0]}

    def _newest(self) -> list[int]:
        oldest = self._step + 1 - self._config.observation_steps
        return [max(0, step) for step in range(oldest, self._step + 1)]

    def receive(self, actions: NDArray[np.float64], seconds: float, inference_ns: int) -> None:
        """Run the world until the chunk arrives, and on to the start of the next inference.

        Args:
            actions: (H, A) in the task's units, the whole horizon.
            seconds: wall time of the policy call.
            inference_ns: simulated time of the policy call.
        """
        self._chunk_seconds.append(seconds)
        arrival = self._started_ns + inference_ns
        while self.steps * self._period < arrival and not self.ended:
            self._advance()
        first = self._config.observation_steps - 1
        jump = self._jump(actions[first:])
        self._predicted, self._predicted_step = actions[first:], self._step
        if self.ended:
            return
        stop = None if self._follow_horizon else first + self._config.action_steps
        targets = actions[first:stop]
        self._chunks.append(
            ChunkRecord(
                step=self._step,
                start_delay_ms=(self._started_ns - self._step * self._period) / NS_PER_MS,
                inference_ms=inference_ns / NS_PER_MS,
                skipped_points=min(self.steps - self._step, len(targets)),
                missed=self._schedule.finished(self._step * self._period, inference_ns, arrival),
                jump=jump,
            )
        )
        if arrival <= (self._step + len(targets)) * self._period:
            self._targets, self._targets_begin = targets, self._step
        self._go_on(arrival)

    def finish(self) -> Episode:
        self._env.close()
        return Episode(
            seed=self.seed,
            rewards=np.array(self._rewards),
            success=self._success,
            chunk_seconds=tuple(self._chunk_seconds),
            frames=tuple(self._frames),
            chunks=tuple(self._chunks),
            hold_steps=self._hold_steps,
            commands=np.reshape(self._commands, (len(self._commands), -1)),
        )

    def _go_on(self, now_ns: int) -> None:
        newest = now_ns // self._period
        if newest > 0:  # the one before it may have arrived during the inference
            self._schedule.observe((newest - 1) * self._period)
        while not self.ended:
            self._schedule.observe(newest * self._period)
            if self._schedule.due(now_ns):
                self._schedule.started(newest * self._period)
                self._step, self._started_ns = newest, now_ns
                first = self._newest()[0]
                self._pictures = {step: seen for step, seen in self._pictures.items() if step >= first}
                return
            if self.steps == newest:
                self._advance()
            newest += 1
            now_ns = newest * self._period

    def _advance(self) -> None:
        """One control step towards the current target."""
        index = self.steps - self._targets_begin
        self._hold_steps += index >= len(self._targets)
        target = self._targets[min(index, len(self._targets) - 1)]
        self._commands.append(target)
        step = self._env.step(target)
        self._observations.append(step.observation)
        self._pictures[self.steps + 1] = self._env.pictures
        self._rewards.append(step.reward)
        self._record(self._targets[index + 1 :])
        self.ended, self._success = step.ended, step.success

    def _jump(self, predicted: NDArray[np.float64]) -> float | None:
        if self._predicted is None or self.executed is None:
            return None
        before = self._predicted[self.executed :][: self._config.action_steps]
        if not len(before):
            return None
        return float(np.linalg.norm(predicted[: len(before)] - before, axis=-1).mean())

    def _record(self, upcoming: NDArray[np.float64]) -> None:
        if self._env.records:
            self._frames.append(self._env.frame(upcoming))
