"""Episodes of a policy in its task's environment, all of them in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from policy import Prediction, Task
from policy.exported import ExportedPolicy
from policy.runtime import Policy
from training.evaluation.environment import Environment, EnvironmentConfig, commanded_positions
from training.evaluation.episode import Episode, RunningEpisode
from training.evaluation.latency import LatencyConfig


@dataclass(frozen=True)
class Rollout:
    """Episodes and the cost of their actions.

    Attributes:
        episodes: episodes in the order of their seeds.
        call_seconds: wall time of each policy call; on ROS, of each chunk from its observation on.
        depths: depth of each policy call (with a tolerance, that of the sample that converges last); empty on ROS.
        network_evaluations: number of all network evaluations, samples × timesteps; None on ROS.
        cuts: whether a deadline stopped the sampler, for each policy call; empty on ROS.
        task: what was observed and commanded; None on ROS.
    """

    episodes: tuple[Episode, ...]
    call_seconds: tuple[float, ...]
    depths: tuple[int, ...] = ()
    network_evaluations: int | None = None
    cuts: tuple[bool, ...] = ()
    task: Task | None = None


def run_episodes(
    policy: Policy | ExportedPolicy,
    seeds: Sequence[int],
    max_steps: int = 200,
    *,
    noise_seed: int = 0,
    batch_size: int | None = None,
    record: int = 0,
    frame_size: int = 192,
    show_progress: bool = True,
    latency: LatencyConfig | None = None,
    environment: EnvironmentConfig | None = None,
) -> Rollout:
    """Let a policy act in one episode per seed.

    An episode that has ended leaves the batch, and the next one in the queue takes its place. Each episode draws its
    noises from its own generator.

    Args:
        policy: policy of the environment's task. A runtime of batch size 1 serves one episode at a time.
        seeds: seeds of the initial states.
        max_steps: control steps after which an episode is cut.
        noise_seed: seed of the policy's noises.
        batch_size: number of episodes that share a policy call; None for all, or for one if the latency is measured.
        record: number of episodes with frames, the first ones.
        frame_size: side of the frames in px, where the environment lets it be chosen.
        show_progress: whether to show a progress bar over control steps.
        latency: behaviour of the world while the policy computes; by default it waits.
        environment: where the episodes are; by default in the task's own.

    Raises:
        ValueError: if the latency is to be measured in more than one episode at a time, or nobody knows where to hold
            the robot before its first chunk; see also `Environment`.
    """
    latency, environment = latency or LatencyConfig(), environment or EnvironmentConfig()
    if latency.mode != "none" and commanded_positions(policy.task) is None:
        raise ValueError(
            f"latency={latency.mode} needs a task that observes what it commands under the same names, to hold it "
            f"until the first chunk; {policy.task.name!r} does not"
        )
    if latency.mode == "measured":
        if batch_size not in (None, 1):
            raise ValueError(f"latency=measured needs batch_size=1, got {batch_size}")
        batch_size = 1
    _warm_up(policy)
    uses_previous = policy.resolved_sampler.uses_previous
    waiting = deque(enumerate(seeds))
    active: dict[int, RunningEpisode] = {}
    finished: dict[int, Episode] = {}
    call_seconds: list[float] = []
    depths: list[int] = []
    cuts: list[bool] = []
    evaluations = 0
    with tqdm(
        total=max_steps * len(seeds), desc="episodes", unit="step", disable=not show_progress
    ) as progress:
        while waiting or active:
            while waiting and len(active) < (batch_size or len(seeds)):
                position, seed = waiting.popleft()
                active[position] = RunningEpisode(
                    policy.config,
                    Environment(
                        environment,
                        policy.task,
                        max_steps=max_steps,
                        frame_size=frame_size if position < record else None,
                    ),
                    seed,
                    noise_seed=noise_seed,
                    margin_ns=latency.margin_ns,
                    follow_horizon=latency.after_chunk == "horizon",
                )
            for episodes in _batches(active.values(), uses_previous):
                predictions, seconds = _predict(policy, episodes, uses_previous)
                call_seconds.append(seconds)
                depths.append(predictions[0].depth)
                cuts.append(predictions[0].cut)
                evaluations += predictions[0].network_evaluations
                for episode, prediction in zip(episodes, predictions, strict=True):
                    before = episode.steps
                    episode.prediction = prediction
                    episode.receive(
                        prediction.actions[0].double().numpy(), seconds, latency.latency_ns(seconds)
                    )
                    progress.update(episode.steps - before)
            for position in [position for position, episode in active.items() if episode.ended]:
                finished[position] = active.pop(position).finish()
                progress.update(max_steps - finished[position].steps)
            if finished:
                reward = np.mean([episode.max_reward for episode in finished.values()])
                progress.set_postfix(finished=len(finished), reward=f"{reward:.3f}")
    return Rollout(
        episodes=tuple(finished[position] for position in range(len(seeds))),
        call_seconds=tuple(call_seconds),
        depths=tuple(depths),
        network_evaluations=evaluations,
        cuts=tuple(cuts),
        task=policy.task,
    )


def _batches(episodes: Iterable[RunningEpisode], uses_previous: bool) -> list[list[RunningEpisode]]:
    """Episodes that can share a policy call: they need previous predictions of the same age, and the same delay."""
    batches: dict[tuple[int | None, int] | None, list[RunningEpisode]] = {}
    for episode in episodes:
        batches.setdefault((episode.executed, episode.delay) if uses_previous else None, []).append(episode)
    return list(batches.values())


def _predict(
    policy: Policy | ExportedPolicy, episodes: Sequence[RunningEpisode], uses_previous: bool
) -> tuple[list[Prediction], float]:
    """A prediction (B = 1) for each episode, and the wall time of the shared call in s."""
    observations = torch.from_numpy(np.stack([episode.observations() for episode in episodes])).float()
    if policy.task.images:  # outside the measured time: a robot encodes a picture when it arrives
        observations = torch.cat((observations, _features(policy, episodes)), -1)
    generators = [episode.generator for episode in episodes]
    last = [episode.prediction for episode in episodes if episode.prediction is not None]
    previous = join_predictions(last) if uses_previous and last else None
    started = time.perf_counter()
    prediction = policy.predict(
        observations,
        generator=generators,
        previous=previous,
        executed=episodes[0].executed,
        delay=episodes[0].delay,
    )
    actions = prediction.actions.cpu()  # inside the measured time: only then does a robot have its chunk
    seconds = time.perf_counter() - started
    return split_prediction(replace(prediction, actions=actions)), seconds


def _features(policy: Policy | ExportedPolicy, episodes: Sequence[RunningEpisode]) -> torch.Tensor:
    """Features (B, observation_steps, F) of what the episodes show."""
    if isinstance(policy, ExportedPolicy):
        raise ValueError(
            "an exported policy takes features, its file has no encoders: evaluate its checkpoint"
        )
    shown = [episode.pictures() for episode in episodes]
    pictures = {name: torch.from_numpy(np.concatenate([each[name] for each in shown])) for name in shown[0]}
    features = policy.encode_images(pictures)
    return features.view(len(episodes), -1, features.shape[-1]).cpu()


def join_predictions(predictions: Sequence[Prediction]) -> Prediction:
    """Predictions of single samples as one of a batch, with the depth and the cost of the first."""
    batch: dict[str, Any] = {
        name: torch.cat([getattr(p, name) for p in predictions]) for name in _tensors(predictions[0])
    }
    return replace(predictions[0], **batch)


def split_prediction(prediction: Prediction) -> list[Prediction]:
    """A prediction (B = 1) for each sample, with the depth and the cost of the batch."""
    names = _tensors(prediction)
    samples = zip(*(getattr(prediction, name).split(1) for name in names), strict=True)
    return [replace(prediction, **dict(zip(names, sample, strict=True))) for sample in samples]


def _tensors(prediction: Prediction) -> list[str]:
    """Names of the fields with one entry per sample."""
    return [f.name for f in fields(prediction) if isinstance(getattr(prediction, f.name), torch.Tensor)]


def _warm_up(policy: Policy | ExportedPolicy) -> None:
    """Keep the first call's one-time work out of the inference times, and find an impossible sampler early."""
    observations = torch.zeros(1, policy.config.observation_steps, policy.config.row_dim(policy.task))
    policy.predict(observations, generator=torch.Generator().manual_seed(0))
