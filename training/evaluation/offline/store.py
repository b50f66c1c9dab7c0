"""Judging a policy on a store of demonstrations: which of its episodes, and whether it is the policy's task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from policy import DiffusionPolicy
from training.data.demonstrations import Demonstrations, load_demonstrations
from training.data.features import with_features
from training.evaluation.offline.judgement import Judgement, judge

HELD_OUT = "held_out_episodes"
"""Key of a checkpoint's provenance: indices of the episodes of its demonstrations that it was not trained on."""


def judge_store(
    policy: DiffusionPolicy,
    path: str | Path,
    *,
    task: str | None = None,
    episodes: Sequence[int] | None = None,
    noise_seeds: Sequence[int],
) -> Judgement:
    """Judge a policy on episodes of a store, by default those that its training held out.

    The summary's `episodes_are` says how they were chosen, and how many the policy was trained on.

    Args:
        policy: with the sampler to judge it by.
        path: of the store.
        task: how to read a store that does not say it itself, see `load_demonstrations`.
        episodes: indices of those to judge by.
        noise_seeds: each chunk is sampled with all of them.

    Raises:
        ValueError: for a store that cannot be read or is of another task, naming the part, or episodes that are not
            there. The message names the file.
    """
    demonstrations = load_demonstrations(path, task=task, policy_task=policy.task)
    chosen, why = _chosen_episodes(demonstrations, policy.provenance, episodes)
    try:
        seen = with_features(demonstrations, policy, chosen)
        judgement = judge(policy, seen, episodes=chosen, noise_seeds=noise_seeds)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    summary = {**judgement.summary, "episodes_are": why, "data_sha256": demonstrations.sha256}
    return replace(judgement, summary=summary)


def _chosen_episodes(
    demonstrations: Demonstrations, provenance: Mapping[str, Any], episodes: Sequence[int] | None
) -> tuple[Sequence[int], str]:
    """The episodes to judge by, and in words which they are."""
    everything = range(len(demonstrations.episode_ends))
    if provenance.get("data_sha256") != demonstrations.sha256:
        return (everything if episodes is None else episodes), "of demonstrations that it was not trained on"
    held_out = provenance.get(HELD_OUT)
    if not isinstance(held_out, list) or not all(each in everything for each in held_out):
        unknown = "the checkpoint does not say which episodes it was trained on, perhaps on these"
        return (everything if episodes is None else episodes), unknown
    if episodes is None and held_out:
        return held_out, "held out by its training"
    chosen = everything if episodes is None else episodes
    trained = sum(each not in held_out for each in chosen)
    return (
        chosen,
        f"it was trained on {trained} of these {len(chosen)}" if trained else "held out by its training",
    )
