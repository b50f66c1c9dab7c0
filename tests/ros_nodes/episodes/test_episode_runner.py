from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policy import DiffusionPolicy, SamplerConfig
from training.evaluation.rollout import run_episodes

SEEDS = range(4, 10)
MAX_STEPS = 28


@pytest.mark.parametrize("output", ["topic", "follow_joint_trajectory"])
def test_lockstep_episodes_have_the_rewards_of_pcm_evaluate(
    stack: Callable[[str], Any], checkpoint: Path, tmp_path: Path, output: str
) -> None:
    nodes = stack("lockstep")
    nodes.start_simulator()
    nodes.start_policy(output=output)
    summary = nodes.run_episodes(
        tmp_path / "out", first_seed=SEEDS[0], episodes=len(SEEDS), max_steps=MAX_STEPS, noise_seed=3
    )
    policy = DiffusionPolicy.load(checkpoint, sampler=SamplerConfig(steps=4))
    offline = run_episodes(policy, SEEDS, MAX_STEPS, noise_seed=3, batch_size=1, show_progress=False)

    moving = [episode for episode in offline.episodes if len(set(episode.rewards)) > 2]
    assert len(moving) >= 3, "where the block stands still, equal rewards say nothing"
    for episode, row in zip(offline.episodes, summary["episodes"], strict=True):
        assert nodes.rewards(episode.seed, episode.steps) == episode.rewards.tolist()
        assert (row["seed"], row["max_reward"]) == (episode.seed, episode.max_reward)
        assert (row["success"], row["steps"]) == (episode.success, episode.steps)
    assert summary["failures"] == {}
    assert summary["policy_parameters"]["sampler.steps"] == 4
    assert f"{summary['episodes'][1]['max_reward']:.3f}" in nodes.printed
    if output == "topic":
        # 28 steps take 3½ chunks; one more may answer to the last observation, and the last one that an episode needs
        # may reach the simulator, and end the episode, before it reaches the runner.
        assert 3 * len(SEEDS) <= summary["policy_calls"] <= 5 * len(SEEDS)
        assert 0 <= summary["latency_ms"]["p50"] < 60_000


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_an_episode_without_chunks_fails_and_the_run_goes_on(
    stack: Callable[[str], Any], tmp_path: Path, mode: str
) -> None:
    nodes = stack(mode)
    nodes.start_simulator(real_time_factor=5.0)
    nodes.start_policy(trajectory_topic="nowhere")
    summary = nodes.run_episodes(tmp_path, first_seed=0, episodes=2, chunk_timeout=1.0)
    reason = "no control step for 1 s after step 0" if mode == "lockstep" else "no chunk for 1 s after step 0"
    assert summary["failures"] == {"0": reason, "1": reason}
    assert [row["seed"] for row in summary["episodes"]] == [0, 1]
    assert summary["latency_ms"] is None
    assert f"episode of seed 1 failed: {reason}" in nodes.printed


def test_without_a_policy_it_ends_with_an_error_in_one_line(stack: Callable[[str], Any], graph: Any) -> None:
    stack("lockstep").start_simulator()
    runner = graph.start("ros_nodes.episodes.episode_runner", startup_timeout=3.0)
    graph.spin_until(lambda: runner.poll() is not None, "the episode runner ends")
    assert runner.returncode == 1
    assert "error: service policy/get_state is not there" in graph.output(runner)
    assert "Traceback" not in graph.output(runner)


def test_the_summary_can_be_read_as_json_without_extensions(
    stack: Callable[[str], Any], tmp_path: Path
) -> None:
    nodes = stack("lockstep")
    nodes.start_simulator()
    nodes.start_policy()
    nodes.run_episodes(tmp_path, first_seed=0, episodes=1, max_steps=4)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert summary["config"]["max_steps"] == 4
    assert len(summary["checkpoint"]["sha256"]) == 64
