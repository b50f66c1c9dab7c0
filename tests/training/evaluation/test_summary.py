from __future__ import annotations

import numpy as np
import pytest

from training.data.task_file import load_task
from training.evaluation.episode import ChunkRecord, Episode
from training.evaluation.interval import mean_interval
from training.evaluation.rollout import Rollout
from training.evaluation.summary import format_interval, format_summary, summarize


def episode(seed: int, rewards: list[float], success: bool = False) -> Episode:
    return Episode(seed=seed, rewards=np.array(rewards), success=success, chunk_seconds=(0.002, 0.004))


def test_summary_numbers() -> None:
    episodes = (episode(1, [0.1, 0.6, 0.2]), episode(2, [0.5, 1.0], success=True))
    rollout = Rollout(episodes, call_seconds=(0.001, 0.003), depths=(5, 7), network_evaluations=24)
    summary = summarize(rollout)
    assert summary["mean_max_reward"] == pytest.approx(0.8)
    assert summary["mean_max_reward_ci95"] == list(mean_interval([0.6, 1.0])[1:])
    assert summary["success_rate"] == 0.5
    assert summary["inference_ms"]["p50"] == pytest.approx(2)
    assert summary["depth"]["mean"] == 6
    assert summary["episodes"][0] == {
        "seed": 1,
        "max_reward": 0.6,
        "success": False,
        "steps": 3,
        "chunk_ms": pytest.approx(3),
    }


def test_longer_episodes_are_compared_with_those_of_the_paper() -> None:
    late, early = [0.2] * 200 + [1.0], [0.7] * 99 + [1.0]
    summary = summarize(Rollout((episode(1, late, success=True), episode(2, early, success=True)), ()))
    assert (summary["mean_max_reward"], summary["success_rate"]) == (1, 1)
    shorter = summary["within_200_steps"]
    assert (shorter["mean_max_reward"], shorter["success_rate"]) == (pytest.approx(0.6), 0.5)
    line = "within 200 steps, the PCM paper's limit: mean maximum reward 0.600 "
    assert line in format_summary(summary)
    assert [row["steps"] for row in summary["episodes"]] == [201, 100]


def test_a_success_in_the_last_step_of_the_paper_counts() -> None:
    last = episode(1, [0.2] * 199 + [1.0], success=True)
    assert last.within(200).success
    assert not last.within(199).success
    summary = summarize(Rollout((last,), ()))
    assert summary["within_200_steps"] is None
    assert "within" not in format_summary(summary)


def test_summary_of_a_world_that_went_on() -> None:
    chunks = tuple(
        ChunkRecord(
            step=step, start_delay_ms=delay, inference_ms=ms, skipped_points=skipped, missed=missed, jump=jump
        )
        for step, delay, ms, skipped, missed, jump in (
            (0, 0.0, 100.0, 1, False, None),
            (7, 50.0, 300.0, 4, True, 6.0),
        )
    )
    episodes = (
        Episode(
            seed=1, rewards=np.zeros(10), success=False, chunk_seconds=(0.1, 0.3), chunks=chunks, hold_steps=2
        ),
        Episode(
            seed=2, rewards=np.zeros(30), success=False, chunk_seconds=(0.1,), chunks=chunks[:1], hold_steps=4
        ),
    )
    summary = summarize(Rollout(episodes, (0.1, 0.3, 0.1), task=load_task("pusht").task))
    assert summary["chunk_jump_px"]["mean"] == 6
    assert summary["world"]["hold_share"] == pytest.approx(0.15)
    assert summary["world"]["skipped_points_per_chunk"] == 2
    assert summary["world"]["deadline_misses"] == 1
    assert summary["world"]["inference_ms"]["p50"] == 100
    assert summary["world"]["start_delay_ms"]["p95"] == pytest.approx(45)


def test_nothing_is_said_of_a_world_that_nobody_saw() -> None:
    summary = summarize(Rollout((Episode(1, np.array([0.5]), False, ()),), ()))
    assert summary["inference_ms"] is summary["depth"] is None
    assert "world" not in summary


def test_times_from_the_observation_on_are_latencies() -> None:
    rollout = Rollout((episode(1, [0.5]),), call_seconds=(0.25, 0.25))
    summary = summarize(rollout, chunk_time="latency_ms")
    assert "inference_ms" not in summary
    assert "latency 250.0 ms median" in format_summary(summary)
    assert "inference time 250.0 ms median" in format_summary(summarize(rollout))


def test_an_interval_of_rewards_ends_at_the_largest_one() -> None:
    rewards = [1.0] * 9 + [0.1]  # 1.96 standard errors of these reach above 1
    summary = summarize(Rollout(tuple(episode(i, [reward]) for i, reward in enumerate(rewards)), ()))
    low, high = summary["mean_max_reward_ci95"]
    assert 0.1 <= low < summary["mean_max_reward"] < high <= 1
    assert format_interval([0.25, 0.75]) == " (95 % interval 0.250 … 0.750)"
    assert format_interval(None) == ""
