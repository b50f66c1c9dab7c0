from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import pytest
import torch

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from policy.networks.lora import ALL_LAYERS, add_lora
from policy.pcm import PCM, save_pcm, weights_sha256
from training.evaluation import evaluate as evaluation
from training.evaluation.evaluate import OUTPUTS, main
from training.output_dir import locked_output_dir


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
        "engine=plain",
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
    assert summary["config"]["sampler"]["solver"] == "auto"
    assert summary["sampler"]["solver"] == "ddim"
    assert summary["sampler"]["steps"] == 2
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


def test_one_process_at_a_time_has_the_output_directory(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output_dir,) = (Path(each.partition("=")[2]) for each in arguments if each.startswith("output_dir="))
    with locked_output_dir(output_dir, OUTPUTS):
        assert main(arguments) == 1
    assert f"{output_dir} is in use by process" in capsys.readouterr().err
    assert not (output_dir / "summary.json").exists()


def test_nothing_is_recorded_on_request(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "recorded_episodes=0"]) == 0
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [".pcm_policy.json", ".pcm_policy.lock", "commands.png", "rewards.png", "summary.json"]


# λ = 1, 1/2: in feature space the second iteration evaluates both models.
@pytest.mark.parametrize(("space", "calls"), [("feature", 3), ("parameter", 2), ("auto", 2)])
def test_a_pcm_is_evaluated_and_named(
    policy: DiffusionPolicy,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    space: str,
    calls: int,
) -> None:
    network = copy.deepcopy(policy.network)
    add_lora(network, rank=2, targets=ALL_LAYERS, generator=torch.Generator())
    pcm = PCM(
        network,
        weights="lora",
        base_sha256=weights_sha256(policy.network),
        solver="ddim",
        steps=2,
        jacobian="drift",
        start="repeated",
        iterations=2,
        rank=2,
        targets=ALL_LAYERS,
        provenance={"seed": 7},
    )
    save_pcm(tmp_path / "pcm.safetensors", pcm)
    options = ["method=pcm", "solver=dpmpp_2m", "stop.iterations=2", f"pcm.space={space}"]
    arguments = [*arguments, *(f"sampler.{option}" for option in options)]
    assert main([*arguments, f"pcm={tmp_path}/pcm.safetensors", "recorded_episodes=0"]) == 0
    expected = "warning: sampler.solver is dpmpp_2m, the PCM was trained for ddim\n"
    assert expected in capsys.readouterr().err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["sampler"]["picard"] == {"jacobian": "drift", "start": "repeated", "start_calls": 1}
    assert summary["pcm"]["provenance"] == {"seed": 7}
    assert summary["depth"]["mean"] == 2
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
    assert summary["world"]["inference_ms"]["p50"] > 0
    assert summary["engine"] == "eager"
    assert main([*arguments, "latency=measured", "batch_size=3", "engine=plain"]) == 1
    assert "latency=measured needs batch_size=1, got 3" in capsys.readouterr().err


def test_engines_serve_one_episode_at_a_time_and_batches(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewards = {}
    arguments = [*arguments, "recorded_episodes=0"]
    for engine, batch_size in (("eager", "1"), ("plain", "1"), ("auto", "null"), ("auto", "2")):
        assert main([*arguments, f"batch_size={batch_size}", f"engine={engine}"]) == 0
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["engine"] == ("openvino" if engine == "auto" else engine)
        rewards[engine, batch_size] = [row["max_reward"] for row in summary["episodes"]]
    for found in rewards.values():
        assert found == pytest.approx(rewards["plain", "1"], abs=1e-3)
    capsys.readouterr()
    assert main([*arguments, "engine=cudagraph"]) == 1
    assert "engine=cudagraph needs batch_size=1, got null" in capsys.readouterr().err
    assert main([*arguments, "engine=steam"]) == 1
    assert "engine must be one of auto, eager, " in capsys.readouterr().err


@pytest.fixture
def judging(policy: DiffusionPolicy, small_demonstrations: Path, tmp_path: Path) -> list[str]:
    policy.save(tmp_path / "policy.safetensors")
    return [
        f"checkpoint={tmp_path}/policy.safetensors",
        f"demonstrations={small_demonstrations}",
        f"output_dir={tmp_path}/out",
        "sampler.steps=2",
    ]


def test_a_checkpoint_is_judged_by_demonstrations_without_a_simulator(
    judging: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(evaluation, "run_episodes")
    assert main([*judging, "demonstrated_episodes=[0,3]", "noise_seeds=2", "noise_seed=7"]) == 0
    printed = capsys.readouterr().out
    assert "2 episodes (0, 3)" in printed
    assert "hold: hold the last" in printed
    out = tmp_path / "out"
    written = sorted(path.name for path in out.iterdir())
    assert written == [".pcm_policy.json", ".pcm_policy.lock", "actions.csv", "actions.png", "summary.json"]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["noise_seeds"] == [7, 8]
    assert summary["sampler"]["steps"] == 2
    assert summary["checkpoint"]["sha256"] == file_sha256(tmp_path / "policy.safetensors")
    assert {"config", "code", "command", "machine", "data_sha256", "baselines"} <= summary.keys()
    for row in summary["dimensions"]:
        interval = row["policy"]["mean_absolute"]
        assert interval["low"] <= interval["mean"] <= interval["high"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["episodes=3"], "episodes is of simulated episodes, of which there are none with demonstrations="),
        (["latency=fixed"], "latency is of simulated episodes"),
        (["batch_size=1"], "batch_size is of simulated episodes"),
        (["demonstrations=null", "demonstrated_episodes=[0]"], "demonstrated_episodes needs demonstrations="),
        (["demonstrations=null", "noise_seeds=3"], "noise_seeds needs demonstrations="),
        (["noise_seeds=0"], "noise_seeds must be in 1 … 1000, got 0"),
        (["demonstrated_episodes=[]"], "small.zarr: at least one episode is needed to judge a policy"),
        (["demonstrated_episodes=[6]"], "small.zarr: there is no episode 6"),
        (["demonstrations=nowhere.zarr"], "nowhere.zarr: no such file or folder"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    judging: list[str], tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*judging, *more]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
