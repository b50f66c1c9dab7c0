"""Episodes of a policy in the PushT simulator, all of them in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import pusht_env  # noqa: F401, registers the environment
from policy import DiffusionPolicy
from training.seeds import combine_seeds


@dataclass(frozen=True)
class Episode:
    """What happened in one episode.

    Attributes:
        seed: of its initial state.
        rewards: (steps,) reward after each control step.
        success: whether it ended on the goal.
        chunk_seconds: wall time of each policy call that it waited for.
        frames: pictures of it, the initial state first, if they were asked for.
    """

    seed: int
    rewards: NDArray[np.float64]
    success: bool
    chunk_seconds: tuple[float, ...]
    frames: tuple[NDArray[np.uint8], ...] = ()

    @property
    def max_reward(self) -> float:
        return float(self.rewards.max(initial=0.0))

    @property
    def steps(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class Rollout:
    """Episodes, and what their actions cost.

    Attributes:
        episodes: in the order of their seeds.
        call_seconds: wall time of each policy call.
        sequential_evaluations: network calls one after the other, per policy call (the depth of a chunk); none
            where they cannot be seen.
        network_evaluations: samples × timesteps that went through the network, in all, if they can be seen.
    """

    episodes: tuple[Episode, ...]
    call_seconds: tuple[float, ...]
    sequential_evaluations: tuple[int, ...] = ()
    network_evaluations: int | None = None


@dataclass
class _RunningEpisode:
    position: int
    seed: int
    env: gymnasium.Env
    generator: torch.Generator
    history: deque[NDArray[np.float64]]
    rewards: list[float] = field(default_factory=list)
    chunk_seconds: list[float] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    success: bool = False
    ended: bool = False


def run_episodes(
    policy: DiffusionPolicy,
    seeds: Sequence[int],
    max_steps: int = 200,
    noise_seed: int = 0,
    batch_size: int | None = None,
    record: int = 0,
    frame_size: int = 192,
    show_progress: bool = True,
) -> Rollout:
    """Let a policy act in one episode per seed.

    An episode that has ended leaves the batch, and the next one that waits takes its place. Each draws its
    noises from a generator of its own.

    Args:
        policy: observes keypoints.
        seeds: initial states.
        max_steps: control steps after which an episode is cut.
        noise_seed: of the policy's noises.
        batch_size: episodes that share a policy call, by default all.
        record: how many episodes, the first ones, get frames.
        frame_size: side of the frames in px.
        show_progress: whether to show a progress bar over control steps.
    """
    waiting = deque(enumerate(seeds))
    active: list[_RunningEpisode] = []
    finished: dict[int, Episode] = {}
    call_seconds: list[float] = []
    depths: list[int] = []
    evaluations = 0
    with tqdm(
        total=max_steps * len(seeds), desc="episodes", unit="step", disable=not show_progress
    ) as progress:
        while waiting or active:
            while waiting and len(active) < (batch_size or len(seeds)):
                position, seed = waiting.popleft()
                active.append(
                    _start(policy, position, seed, max_steps, noise_seed, position < record, frame_size)
                )
            observations = torch.from_numpy(
                np.stack([np.stack(episode.history) for episode in active])
            ).float()
            with _counting(policy) as counts:
                started = time.perf_counter()
                # Moved to the CPU inside the clock: a robot has its chunk only then.
                prediction = policy.predict(observations, generator=[e.generator for e in active])
                chunks = prediction.chunk.cpu()
                seconds = time.perf_counter() - started
            call_seconds.append(seconds)
            depths.append(prediction.depth)
            evaluations += sum(counts)
            for episode, chunk in zip(active, chunks.double().numpy(), strict=True):
                episode.chunk_seconds.append(seconds)
                progress.update(_execute(episode, chunk))
                if episode.ended:
                    finished[episode.position] = _finish(episode)
                    progress.update(max_steps - len(episode.rewards))
            active = [episode for episode in active if not episode.ended]
            if finished:
                reward = np.mean([episode.max_reward for episode in finished.values()])
                progress.set_postfix(finished=len(finished), reward=f"{reward:.3f}")
    episodes = tuple(finished[position] for position in range(len(seeds)))
    return Rollout(episodes, tuple(call_seconds), tuple(depths), evaluations)


def _start(
    policy: DiffusionPolicy,
    position: int,
    seed: int,
    max_steps: int,
    noise_seed: int,
    record: bool,
    frame_size: int,
) -> _RunningEpisode:
    env = gymnasium.make(
        "pusht_env/PushT-v0",
        max_episode_steps=max_steps,
        render_mode="rgb_array" if record else None,
        render_size=frame_size,
        disable_env_checker=True,
    )
    observation, _ = env.reset(seed=seed)
    size = policy.config.observation_steps
    generator = torch.Generator().manual_seed(combine_seeds(noise_seed, seed))
    episode = _RunningEpisode(position, seed, env, generator, deque([observation] * size, maxlen=size))
    _record(episode, [])
    return episode


def _execute(episode: _RunningEpisode, chunk: NDArray[np.float64]) -> int:
    """Execute an action chunk (action_steps, A), or as much of it as the episode lasts; returns the steps."""
    for step, action in enumerate(chunk):
        observation, reward, terminated, truncated, info = episode.env.step(action)
        episode.history.append(observation)
        episode.rewards.append(float(reward))
        _record(episode, chunk[step + 1 :])
        if terminated or truncated:
            episode.success = bool(info["is_success"])
            episode.ended = True
            return step + 1
    return len(chunk)


def _finish(episode: _RunningEpisode) -> Episode:
    episode.env.close()
    return Episode(
        episode.seed,
        np.array(episode.rewards),
        episode.success,
        tuple(episode.chunk_seconds),
        tuple(episode.frames),
    )


def _record(episode: _RunningEpisode, upcoming: NDArray[np.float64] | list[float]) -> None:
    if episode.env.render_mode is None:
        return
    episode.env.unwrapped.predicted_chunk = np.reshape(upcoming, (-1, 2))  # type: ignore[attr-defined]
    frame = episode.env.render()
    assert isinstance(frame, np.ndarray)
    episode.frames.append(frame)


@contextmanager
def _counting(policy: DiffusionPolicy) -> Iterator[list[int]]:
    """Count what goes through the networks: one entry per call, its batch size."""
    counts: list[int] = []
    hooks = [
        network.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
        for network in policy.networks
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()
