"""Chunks of a policy that acts in its simulator, which goes on while a chunk is computed. Knows no ROS."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from policy import DiffusionPolicy, SamplerConfig
from ros_nodes.seams.synthetic_chunks import BEGIN, CHUNK, HORIZON, MARGIN, PERIOD
from training.evaluation.environment import Environment, EnvironmentConfig
from training.evaluation.episode import RunningEpisode

CHECKPOINT = Path("checkpoints/pusht_mirror.safetensors")
SAMPLER = SamplerConfig("sequential", "dpmpp_2m", 5)
SEED = 100_000
"""Of the episode, the first that `make run` evaluates."""


def recorded_chunks(
    checkpoint: Path, *, latency: float, steps: int, hand_over: str = "replace"
) -> tuple[tuple[int, NDArray[np.float64]], ...]:
    """What a policy predicts in an episode.

    Args:
        checkpoint: of a policy for PushT's horizon and chunk.
        latency: from an observation to its chunk, in s.
        steps: control steps after which nothing more is predicted.
        hand_over: of the sampler.

    Returns:
        For each chunk the control step of its newest observation, and its horizon (H, 2) in px.

    Raises:
        ValueError: for a policy of another horizon or chunk.
    """
    policy = DiffusionPolicy.load(checkpoint, sampler=replace(SAMPLER, hand_over=hand_over))
    config = policy.config
    if (config.horizon, config.observation_steps - 1, config.action_steps) != (HORIZON, BEGIN, CHUNK):
        raise ValueError(f"{checkpoint}: must predict {HORIZON} points, of which a chunk takes {CHUNK}")
    episode = RunningEpisode(
        config,
        Environment(EnvironmentConfig(), policy.task, max_steps=steps + HORIZON),
        SEED,
        margin_ns=round(MARGIN * 1e9),
    )
    chunks = []
    step, prediction = 0, None
    late = math.ceil(latency / PERIOD)
    while not episode.ended:
        step += episode.executed or 0
        if step >= steps:
            break
        observations = torch.from_numpy(episode.observations()).float()[None]
        prediction = policy.predict(
            observations,
            generator=episode.generator,
            previous=prediction,
            executed=episode.executed,
            delay=late,
        )
        actions = prediction.actions[0].double().numpy()
        chunks.append((step, actions))
        episode.receive(actions, 0.0, round(latency * 1e9))
    episode.finish()
    return tuple(chunks)
