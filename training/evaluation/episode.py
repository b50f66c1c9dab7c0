"""One episode in a simulator that goes on while the policy computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

import pusht_env  # noqa: F401, registers the environment
from policy import PolicyConfig, Prediction
from policy.chunk_schedule import ChunkSchedule
from pusht_env.physics import CONTROL_HZ
from training.evaluation.latency import NS_PER_MS
from training.seeds import combine_seeds

PERIOD_NS = 1_000_000_000 // CONTROL_HZ


@dataclass(frozen=True)
class ChunkRecord:
    """How one chunk met a world that had gone on.

    Attributes:
        step: control step of the newest observation that it is based on.
        start_delay_ms: age of that observation when the inference started.
        latency_ms: from then until the chunk was there.
        skipped_points: its points that were over by then.
        missed: whether the chunk before it had ended by then.
        jump: mean distance in px of its targets from those that the chunk before it predicted for the same control
            steps; None for the first chunk, or if they have no step in common.
    """

    step: int
    start_delay_ms: float
    latency_ms: float
    skipped_points: int
    missed: bool
    jump: float | None


@dataclass(frozen=True)
class Episode:
    """What happened in one episode.

    Attributes:
        seed: of its initial state.
        rewards: (steps,) reward after each control step.
        success: whether it ended on the goal.
        chunk_seconds: wall time of each policy call that it waited for.
        frames: pictures of it, the initial state first, if they were asked for.
        chunks: those that arrived, if it was seen.
        hold_steps: control steps in which there was no target to move to, if it was seen.
    """

    seed: int
    rewards: NDArray[np.float64]
    success: bool
    chunk_seconds: tuple[float, ...]
    frames: tuple[NDArray[np.uint8], ...] = ()
    chunks: tuple[ChunkRecord, ...] = ()
    hold_steps: int | None = None

    @property
    def max_reward(self) -> float:
        return float(self.rewards.max(initial=0.0))

    @property
    def steps(self) -> int:
        return len(self.rewards)


def hold_share(episodes: Sequence[Episode]) -> float | None:
    """Share of all control steps in which there was no target to move to; None if that was not seen."""
    held = [episode.hold_steps for episode in episodes if episode.hold_steps is not None]
    return sum(held) / sum(episode.steps for episode in episodes) if len(held) == len(episodes) else None


class RunningEpisode:
    """An episode up to the time at which the next chunk's inference starts, or its end.

    Chunks are scheduled and executed as by the policy node and the simulator in real time (docs/ros.md): an inference
    starts from the last observation that leaves enough time, judged by the newest latencies, and one at a time. Point i
    of a chunk is due i control periods after the newest observation that it is based on, and the points that are over
    when it arrives are skipped. The target of a control step is fixed at its start, so that a latency counts as if it
    ended with the control step that it ends in. Where a chunk ends before the next one is there, the pusher holds its
    last target, unless it is to go on with the rest of the horizon; before the first one, its position. What arrives
    after its last point is refused. Without latency this is the synchronous execution: all points of each chunk, and
    then the next.

    `prediction` is for its owner to keep the last one in, which a warm start continues.

    Args:
        config: of the policy.
        seed: of the initial state.
        max_steps: control steps after which the episode is cut.
        noise_seed: of the policy's noises.
        margin_ns: how much earlier than needed a chunk should be there.
        follow_horizon: whether the pusher goes on with what was predicted beyond a chunk until the next one is there.
        frame_size: side in px of the frames to record, or None for none.
    """

    def __init__(
        self,
        config: PolicyConfig,
        seed: int,
        max_steps: int,
        noise_seed: int = 0,
        margin_ns: int = 0,
        follow_horizon: bool = False,
        frame_size: int | None = None,
    ) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(combine_seeds(noise_seed, seed))
        self.prediction: Prediction | None = None
        self.ended = False
        self._env = gymnasium.make(
            "pusht_env/PushT-v0",
            max_episode_steps=max_steps,
            render_mode=None if frame_size is None else "rgb_array",
            render_size=frame_size or 1,
            disable_env_checker=True,
        )
        observation, info = self._env.reset(seed=seed)
        self._config = config
        self._schedule = ChunkSchedule(
            chunk_ns=config.action_steps * PERIOD_NS,
            period_ns=PERIOD_NS,
            margin_ns=margin_ns,
            synchronous=False,
            latency_ns=0,
        )
        self._observations = [observation]  # before control step 0, 1, …
        self._rewards: list[float] = []
        self._success = False
        self._frames: list[NDArray[np.uint8]] = []
        self._chunk_seconds: list[float] = []
        self._chunks: list[ChunkRecord] = []
        self._hold_steps = 0
        self._follow_horizon = follow_horizon
        self._targets = np.reshape(info["pusher_position"], (1, 2))
        self._targets_begin = -1  # control step of the first of them, here one that is over
        self._predicted: NDArray[np.float64] | None = None
        self._predicted_step: int | None = None
        self._step = 0
        self._started_ns = 0
        self._record([])
        self._go_on(0)

    @property
    def steps(self) -> int:
        return len(self._rewards)

    @property
    def executed(self) -> int | None:
        """Control steps from the observations of the last prediction to those of the next; None before the first."""
        return None if self._predicted_step is None else self._step - self._predicted_step

    def observations(self) -> NDArray[np.float64]:
        """(observation_steps, observation_dim) that the inference starts from; the first stands for those before it."""
        oldest = self._step + 1 - self._config.observation_steps
        return np.stack([self._observations[max(0, step)] for step in range(oldest, self._step + 1)])

    def receive(self, actions: NDArray[np.float64], seconds: float, latency_ns: int) -> None:
        """Let the world go on until the chunk is there, and from then until the next inference starts.

        Args:
            actions: (H, A) in px, the whole horizon.
            seconds: wall time that the prediction took.
            latency_ns: simulated time that it takes.
        """
        self._chunk_seconds.append(seconds)
        arrival = self._started_ns + latency_ns
        while self.steps * PERIOD_NS < arrival and not self.ended:
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
                self._step,
                (self._started_ns - self._step * PERIOD_NS) / NS_PER_MS,
                latency_ns / NS_PER_MS,
                min(self.steps - self._step, len(targets)),
                self._schedule.finished(self._step * PERIOD_NS, latency_ns, arrival),
                jump,
            )
        )
        if arrival <= (self._step + len(targets)) * PERIOD_NS:
            self._targets, self._targets_begin = targets, self._step
        self._go_on(arrival)

    def finish(self) -> Episode:
        self._env.close()
        return Episode(
            self.seed,
            np.array(self._rewards),
            self._success,
            tuple(self._chunk_seconds),
            tuple(self._frames),
            tuple(self._chunks),
            self._hold_steps,
        )

    def _go_on(self, now_ns: int) -> None:
        newest = now_ns // PERIOD_NS
        if newest > 0:  # the one before has come too, perhaps while a chunk was computed
            self._schedule.observe((newest - 1) * PERIOD_NS)
        while not self.ended:
            self._schedule.observe(newest * PERIOD_NS)
            if self._schedule.due(now_ns):
                self._schedule.started(newest * PERIOD_NS)
                self._step, self._started_ns = newest, now_ns
                return
            if self.steps == newest:
                self._advance()
            newest += 1
            now_ns = newest * PERIOD_NS

    def _advance(self) -> None:
        """One control step towards the target of now."""
        index = self.steps - self._targets_begin
        self._hold_steps += index >= len(self._targets)
        target = self._targets[min(index, len(self._targets) - 1)]
        observation, reward, terminated, truncated, info = self._env.step(target)
        self._observations.append(observation)
        self._rewards.append(float(reward))
        self._record(self._targets[index + 1 :])
        self.ended = terminated or truncated
        self._success = self.ended and bool(info["is_success"])

    def _jump(self, predicted: NDArray[np.float64]) -> float | None:
        if self._predicted is None or self.executed is None:
            return None
        before = self._predicted[self.executed :][: self._config.action_steps]
        if not len(before):
            return None
        return float(np.linalg.norm(predicted[: len(before)] - before, axis=-1).mean())

    def _record(self, upcoming: NDArray[np.float64] | list[float]) -> None:
        if self._env.render_mode is None:
            return
        self._env.unwrapped.predicted_chunk = np.reshape(upcoming, (-1, 2))  # type: ignore[attr-defined]
        frame = self._env.render()
        assert isinstance(frame, np.ndarray)
        self._frames.append(frame)
