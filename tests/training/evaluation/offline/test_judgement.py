from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from policy import DiffusionPolicy, SamplerConfig
from policy.task import Task
from training.data.demonstrations import Demonstrations
from training.evaluation.offline.chunks import sampled_chunks
from training.evaluation.offline.errors import action_errors
from training.evaluation.offline.judgement import judge
from training.evaluation.offline.validation import HeldOutEpisodes

Recorded = Callable[..., Demonstrations]


@pytest.fixture(scope="module")
def quick(arm_policy: DiffusionPolicy) -> DiffusionPolicy:
    return arm_policy.with_sampler(SamplerConfig("sequential", "ddim", 2))


def test_the_summary_holds_what_the_samples_and_the_baselines_are_off_by(
    quick: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    demonstrations = recorded(20, 12, 30, 8)
    judgement = judge(quick, demonstrations, episodes=[2, 0], noise_seeds=(4, 5))
    summary = judgement.summary
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["episodes"] == [0, 2]
    assert (summary["steps"], summary["chunks"], summary["noise_seeds"]) == (50, 7, [4, 5])
    assert summary["baselines"]["mean"] == "the mean action of the 2 other episodes"
    np.testing.assert_array_equal(judgement.sampled[1], sampled_chunks(quick, judgement.chunks, 5))

    others = np.concatenate([demonstrations.actions[20:32], demonstrations.actions[62:]])
    first, last = demonstrations.actions[:20], demonstrations.actions[32:62]
    for index, row in enumerate(summary["dimensions"]):
        assert (row["name"], row["unit"]) == (arm.action.names[index], arm.action.units[index])
        assert row["range"] == pytest.approx(np.ptp(others[:, index]))
        mean = others[:, index].mean()
        off = [np.abs(actions[:, index] - mean).mean() for actions in (first, last)]
        assert row["mean"]["mean_absolute"]["mean"] == pytest.approx(np.mean(off), rel=1e-5)
        policy, hold = (row[method]["mean_absolute"]["mean"] for method in ("policy", "hold"))
        assert row["policy_minus_hold"]["mean"] == pytest.approx(policy - hold)
        assert row["policy"]["mean_absolute"]["low"] <= policy <= row["policy"]["mean_absolute"]["high"]
        assert policy == pytest.approx(
            action_errors(judgement.sampled, judgement.chunks).mean_absolute[..., index].mean()
        )
    shares = [row["policy"]["mean_absolute"]["mean"] / row["range"] for row in summary["dimensions"]]
    assert summary["overall"]["policy"]["mean"] == pytest.approx(np.mean(shares))


def test_a_single_episode_has_no_interval_and_its_own_mean(
    quick: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    summary = judge(quick, recorded(20), episodes=[0], noise_seeds=[0]).summary
    assert summary["baselines"]["mean"].endswith("the judged episodes themselves (there are no others)")
    assert summary["dimensions"][0]["policy"]["mean_absolute"]["low"] is None
    assert summary["overall"]["policy"]["low"] is None


def test_a_dimension_that_never_varies_has_an_error_but_no_share(
    quick: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    demonstrations = recorded(20, 20)
    demonstrations.actions[:, 2] = 0.5
    summary = judge(quick, demonstrations, episodes=[0], noise_seeds=[0]).summary
    assert summary["dimensions"][2]["range"] is None
    assert summary["dimensions"][2]["hold"]["mean_absolute"]["mean"] == 0
    shares = [row["hold"]["mean_absolute"]["mean"] / row["range"] for row in summary["dimensions"][:2]]
    assert summary["overall"]["hold"]["mean"] == pytest.approx(np.mean(shares))
    still = replace(demonstrations, actions=np.full_like(demonstrations.actions, 0.5))
    summary = judge(quick, still, episodes=[0], noise_seeds=[0]).summary
    assert summary["overall"]["policy"] == {"mean": None, "low": None, "high": None}


def test_noise_seeds_are_needed(quick: DiffusionPolicy, recorded: Recorded, arm: Task) -> None:
    with pytest.raises(ValueError, match="at least one noise seed is needed"):
        judge(quick, recorded(20), episodes=[0], noise_seeds=[])


def test_a_validation_logs_what_the_judgement_of_one_noise_seed_says(
    quick: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    demonstrations = recorded(20, 12, 30)
    judgement = judge(quick, demonstrations, episodes=[1, 2], noise_seeds=[0])
    held_out = HeldOutEpisodes.of(demonstrations, np.array([1, 2]), quick.config)
    numbers = held_out.errors(quick)
    names = ("", "/shoulder", "/elbow", "/gripper")
    assert list(numbers) == held_out.columns == [f"held_out_error{name}" for name in names]
    overall, *dimensions = numbers.values()
    assert overall == pytest.approx(judgement.summary["overall"]["policy"]["mean"])
    rows = judgement.summary["dimensions"]
    assert dimensions == pytest.approx([row["policy"]["mean_absolute"]["mean"] for row in rows])
