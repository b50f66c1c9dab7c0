from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from policy.networks.lora import ALL_LAYERS, add_lora
from policy.pcm import PCM, save_pcm, weights_sha256
from training.evaluation import evaluate as evaluation
from training.evaluation.episode import ChunkRecord, Episode
from training.evaluation.evaluate import format_interval, main, summarize
from training.evaluation.rollout import Rollout


@pytest.fixture
def arguments(policy: DiffusionPolicy, tmp_path: Path) -> list[str]:
    policy.save(tmp_path / "policy.safetensors")
    return [
        f"checkpoint={tmp_path}/policy.safetensors",
        f"output_dir={tmp_path}/out",
        "sampler.steps=2",
        "episodes=3",
        "max_steps=12",
        "recorded_episodes=2",
    ]


def test_summary_pictures_and_video_are_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "100002" in printed
    assert "mean maximum reward" in printed
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["config"]["sampler"]["name"] == "ddim"
    assert summary["config"]["sampler"]["steps"] == 2
    assert [row["seed"] for row in summary["episodes"]] == [100000, 100001, 100002]
    assert summary["depth"]["mean"] == 2
    assert len(summary["checkpoint"]["sha256"]) == 64
    frames = imageio.mimread(out / "episodes.mp4")
    assert len(frames) == 13
    assert frames[0].shape == (192, 384, 3)
    for name in ("rewards.png", "final_frames.png", "episode.png"):
        assert imageio.imread(out / name).std() > 5  # not blank


def test_the_hash_is_of_the_file_that_was_evaluated(
    policy: DiffusionPolicy, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = file_sha256(tmp_path / "policy.safetensors")
    run_episodes = evaluation.run_episodes

    def run_beside_a_training(*arguments: Any, **options: Any) -> Any:
        replace(policy, provenance={"iterations": 1}).save(tmp_path / "policy.safetensors")
        return run_episodes(*arguments, **options)

    monkeypatch.setattr(evaluation, "run_episodes", run_beside_a_training)
    assert main([*arguments, "recorded_episodes=0"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["checkpoint"]["sha256"] == sha256 != file_sha256(tmp_path / "policy.safetensors")


def test_same_command_gives_the_same_rewards(arguments: list[str], tmp_path: Path) -> None:
    rewards = []
    for _ in range(2):
        assert main(arguments) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        rewards.append([row["max_reward"] for row in summary["episodes"]])
    assert rewards[0] == rewards[1]


def test_nothing_is_recorded_on_request(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "recorded_episodes=0"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["rewards.png", "summary.json"]


@pytest.mark.parametrize("sampler", ["pcm", "pcm_lora"])
def test_a_pcm_is_evaluated_and_named(
    policy: DiffusionPolicy,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sampler: str,
) -> None:
    network = copy.deepcopy(policy.network)
    add_lora(network, rank=2, targets=ALL_LAYERS, generator=torch.Generator())
    base = weights_sha256(policy.network)
    trained_for = {"steps": 2, "formulation": "drift", "initialisation": "repeated", "iterations": 2}
    pcm = PCM(network, "lora", base, **trained_for, rank=2, targets=ALL_LAYERS, provenance={"seed": 7})
    save_pcm(tmp_path / "pcm.safetensors", pcm)
    options = ["formulation=drift", "initialisation=repeated", "iterations=2", "stiffness=1"]
    arguments = [*arguments, f"sampler={sampler}", *(f"sampler.{option}" for option in options)]
    assert main([*arguments, f"pcm={tmp_path}/pcm.safetensors", "recorded_episodes=0"]) == 0
    expected = "warning: sampler.solver is dpm_solver, the PCM was trained for ddim\n"
    assert expected in capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["config"]["sampler"]["stiffness"] == 1
    assert summary["pcm"]["provenance"] == {"seed": 7}
    assert summary["depth"]["mean"] == 2
    # λ = 1, 1/2: in feature space the second iteration evaluates both models.
    calls = {"pcm": 3, "pcm_lora": 2}[sampler]
    chunks = sum(-(-row["steps"] // policy.config.action_steps) for row in summary["episodes"])
    assert summary["network_evaluations"] == calls * 2 * chunks


def test_the_world_goes_on_by_choice(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "recorded_episodes=0", "latency=fixed", "latency.ms=250"]) == 0
    assert "went on for 250 ms per chunk: 3.0 points skipped" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["config"]["latency"] == {
        "mode": "fixed",
        "ms": 250.0,
        "margin_ms": 0.0,
        "after_chunk": "hold",
    }
    assert summary["world"]["hold_share"] == 0.25
    assert main([*arguments, "recorded_episodes=0", "latency=measured", "engine=eager"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["world"]["latency_ms"]["p50"] > 0
    assert summary["engine"] == "eager"
    assert main([*arguments, "latency=measured", "batch_size=3", "engine=plain"]) == 1
    assert "latency=measured needs batch_size=1, got 3" in capsys.readouterr().err


def test_summary_numbers() -> None:
    def episode(seed: int, rewards: list[float], success: bool) -> Episode:
        return Episode(seed, np.array(rewards), success, (0.002, 0.004))

    rollout = Rollout(
        (episode(1, [0.1, 0.6, 0.2], False), episode(2, [0.5, 1.0], True)), (0.001, 0.003), (5, 7), 24
    )
    summary = summarize(rollout)
    assert summary["mean_max_reward"] == pytest.approx(0.8)
    # Standard deviation of (0.6, 1.0) is 0.2·√2, of their mean 0.2.
    assert summary["mean_max_reward_ci95"] == pytest.approx([0.8 - 1.96 * 0.2, 0.8 + 1.96 * 0.2])
    assert summary["success_rate"] == 0.5
    assert summary["chunk_latency_ms"]["p50"] == pytest.approx(2)
    assert summary["depth"]["mean"] == 6
    assert summary["episodes"][0] == {
        "seed": 1,
        "max_reward": 0.6,
        "success": False,
        "steps": 3,
        "chunk_ms": pytest.approx(3),
    }


def test_the_runtime_serves_one_episode_at_a_time(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewards = {}
    arguments = [*arguments, "recorded_episodes=0"]
    for engine in ("eager", "plain"):
        assert main([*arguments, "batch_size=1", f"engine={engine}"]) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["engine"] == engine
        rewards[engine] = [row["max_reward"] for row in summary["episodes"]]
    assert rewards["eager"] == pytest.approx(rewards["plain"], abs=1e-3)
    capsys.readouterr()
    assert main([*arguments, "engine=eager"]) == 1
    assert "engine=eager needs batch_size=1, got null" in capsys.readouterr().err
    assert main([*arguments, "engine=steam"]) == 1
    assert "engine must be one of auto, eager, " in capsys.readouterr().err


def test_summary_of_a_world_that_went_on() -> None:
    chunks = (ChunkRecord(0, 0.0, 100.0, 1, False, None), ChunkRecord(7, 50.0, 300.0, 4, True, 6.0))
    episodes = (
        Episode(1, np.zeros(10), False, (0.1, 0.3), chunks=chunks, hold_steps=2),
        Episode(2, np.zeros(30), False, (0.1,), chunks=chunks[:1], hold_steps=4),
    )
    summary = summarize(Rollout(episodes, (0.1, 0.3, 0.1)))
    assert summary["chunk_jump_px"]["mean"] == 6
    assert summary["world"]["hold_share"] == pytest.approx(0.15)
    assert summary["world"]["skipped_points_per_chunk"] == 2
    assert summary["world"]["deadline_misses"] == 1
    assert summary["world"]["latency_ms"]["p50"] == 100
    assert summary["world"]["start_delay_ms"]["p95"] == pytest.approx(45)


def test_nothing_is_said_of_a_world_that_nobody_saw() -> None:
    summary = summarize(Rollout((Episode(1, np.array([0.5]), False, ()),), ()))
    assert summary["chunk_latency_ms"] is summary["depth"] is None
    assert "world" not in summary


def test_an_interval_of_rewards_ends_at_the_largest_one() -> None:
    assert format_interval([0.25, 0.75]) == " (95 % interval 0.250 … 0.750)"
    assert format_interval([0.9, 1.1]) == " (95 % interval 0.900 … 1.000)"
    assert format_interval(None) == ""
