"""Episodes of a policy in the PushT simulator, all of them in one batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from policy import Prediction
from policy.runtime import Policy
from training.evaluation.episode import Episode, RunningEpisode
from training.evaluation.latency import LatencyConfig


@dataclass(frozen=True)
class Rollout:
    """Episodes, and what their actions cost.

    Attributes:
        episodes: in the order of their seeds.
        call_seconds: wall time of each policy call.
        sequential_evaluations: network calls one after the other, per policy call (the depth of a chunk; with a
            tolerance, of the chunk in the batch that converges last); none where they cannot be seen.
        network_evaluations: samples × timesteps that went through networks, in all, if they can be seen.
        cuts: whether a deadline stopped the sampler, per policy call; none where it cannot be seen.
    """

    episodes: tuple[Episode, ...]
    call_seconds: tuple[float, ...]
    sequential_evaluations: tuple[int, ...] = ()
    network_evaluations: int | None = None
    cuts: tuple[bool, ...] = ()


def run_episodes(
    policy: Policy,
    seeds: Sequence[int],
    max_steps: int = 200,
    noise_seed: int = 0,
    batch_size: int | None = None,
    record: int = 0,
    frame_size: int = 192,
    show_progress: bool = True,
    latency: LatencyConfig | None = None,
) -> Rollout:
    """Let a policy act in one episode per seed.

    An episode that has ended leaves the batch, and the next one that waits takes its place. Each draws its
    noises from a generator of its own.

    Args:
        policy: observes keypoints. A runtime of batch size 1 serves one episode at a time.
        seeds: initial states.
        max_steps: control steps after which an episode is cut.
        noise_seed: of the policy's noises.
        batch_size: episodes that share a policy call, by default all, and one alone if the latency is measured.
        record: how many episodes, the first ones, get frames.
        frame_size: side of the frames in px.
        show_progress: whether to show a progress bar over control steps.
        latency: how long the world goes on while the policy computes, by default not at all.

    Raises:
        ValueError: if the latency is to be measured of more than one episode at a time.
    """
    latency = latency or LatencyConfig()
    if latency.mode == "measured":
        if batch_size not in (None, 1):
            raise ValueError(f"latency=measured needs batch_size=1, got {batch_size}")
        batch_size = 1
    _warm_up(policy)
    warm = policy.sampler.parallel.warm_start != "none"
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
                    seed,
                    max_steps,
                    noise_seed,
                    latency.margin_ns,
                    latency.after_chunk == "horizon",
                    frame_size if position < record else None,
                )
            for episodes in _batches(active.values(), warm):
                predictions, seconds = _predict(policy, episodes, warm)
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
        tuple(finished[position] for position in range(len(seeds))),
        tuple(call_seconds),
        tuple(depths),
        evaluations,
        tuple(cuts),
    )


def _batches(episodes: Iterable[RunningEpisode], warm: bool) -> list[list[RunningEpisode]]:
    """The episodes that can share a policy call: a warm start needs predictions that are equally old."""
    batches: dict[int | None, list[RunningEpisode]] = {}
    for episode in episodes:
        batches.setdefault(episode.executed if warm else None, []).append(episode)
    return list(batches.values())


def _predict(
    policy: Policy, episodes: Sequence[RunningEpisode], warm: bool
) -> tuple[list[Prediction], float]:
    """A prediction (B = 1) for each episode, and the wall time in s that all of them took together."""
    observations = torch.from_numpy(np.stack([episode.observations() for episode in episodes])).float()
    generators = [episode.generator for episode in episodes]
    last = [episode.prediction for episode in episodes if episode.prediction is not None]
    previous = join_predictions(last) if warm and last else None
    started = time.perf_counter()
    prediction = policy.predict(
        observations, generator=generators, previous=previous, executed=episodes[0].executed
    )
    actions = prediction.actions.cpu()  # inside the clock: a robot has its chunk only then
    seconds = time.perf_counter() - started
    return split_prediction(replace(prediction, actions=actions)), seconds


def join_predictions(predictions: Sequence[Prediction]) -> Prediction:
    """One prediction for a batch of those of its samples; what it took is that of the first."""
    batch: dict[str, Any] = {
        name: torch.cat([getattr(p, name) for p in predictions]) for name in _tensors(predictions[0])
    }
    return replace(predictions[0], **batch)


def split_prediction(prediction: Prediction) -> list[Prediction]:
    """A prediction (B = 1) for each sample; what it took is that of the batch."""
    names = _tensors(prediction)
    samples = zip(*(getattr(prediction, name).split(1) for name in names), strict=True)
    return [replace(prediction, **dict(zip(names, sample, strict=True))) for sample in samples]


def _tensors(prediction: Prediction) -> list[str]:
    """Fields with one entry a sample."""
    return [f.name for f in fields(prediction) if isinstance(getattr(prediction, f.name), torch.Tensor)]


def _warm_up(policy: Policy) -> None:
    """Keep the first call's one-time work out of the latencies, and find an impossible sampler early."""
    observations = torch.zeros(1, policy.config.observation_steps, policy.config.observation_dim)
    policy.predict(observations, generator=torch.Generator().manual_seed(0))
