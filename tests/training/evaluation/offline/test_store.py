from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy import DiffusionPolicy, SamplerConfig
from policy.task import Command, Part, Task
from training.data.demonstrations import load_demonstrations
from training.evaluation.offline.store import judge_store


@pytest.mark.parametrize(
    ("provenance", "asked", "episodes", "said"),
    [
        ({"held_out_episodes": [4, 1]}, None, [1, 4], "held out by its training"),
        ({"held_out_episodes": [4, 1]}, [4], [4], "held out by its training"),
        ({"held_out_episodes": [4, 1]}, [3, 4], [3, 4], "it was trained on 1 of these 2"),
        ({"held_out_episodes": []}, None, list(range(6)), "it was trained on 6 of these 6"),
        ({}, None, list(range(6)), "the checkpoint does not say which"),
        ({"held_out_episodes": [99]}, [2], [2], "the checkpoint does not say which"),
        ({"held_out_episodes": "all"}, [2], [2], "the checkpoint does not say which"),
        ({"data_sha256": "f" * 64, "held_out_episodes": [1]}, None, list(range(6)), "it was not trained on"),
    ],
)
def test_by_default_the_episodes_are_judged_that_training_held_out(
    untrained: DiffusionPolicy,
    small_demonstrations: Path,
    provenance: dict[str, Any],
    asked: list[int] | None,
    episodes: list[int],
    said: str,
) -> None:
    sha256 = load_demonstrations(small_demonstrations, task="pusht").sha256
    policy = replace(untrained, provenance={"data_sha256": sha256, **provenance})
    policy = policy.with_sampler(SamplerConfig("sequential", "ddim", 1))
    summary = judge_store(policy, small_demonstrations, episodes=asked, noise_seeds=[0]).summary
    assert summary["episodes"] == episodes
    assert said in summary["episodes_are"]


def test_a_store_of_another_task_is_refused_by_the_name_of_the_part(
    untrained: DiffusionPolicy, small_demonstrations: Path
) -> None:
    part = Part(name="arm", names=("shoulder",), units=("rad",))
    action = Command(names=("shoulder",), units=("rad",), lower=(None,), upper=(None,))
    policy = replace(untrained, task=Task(name="arm", rate=20, observation=(part,), action=action))
    with pytest.raises(ValueError, match=r"small\.zarr: .*part arm is missing, there are keypoints, pusher"):
        judge_store(policy, small_demonstrations, task="pusht", noise_seeds=[0])


def test_an_episode_that_is_not_there_is_named_with_the_store(
    untrained: DiffusionPolicy, small_demonstrations: Path
) -> None:
    with pytest.raises(ValueError, match=r"small\.zarr: there is no episode 6: the demonstrations have 6"):
        judge_store(untrained, small_demonstrations, episodes=[6], noise_seeds=[0])
