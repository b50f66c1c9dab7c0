from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LAUNCH_FILE = str(Path(__file__).resolve().parents[3] / "launch" / "pusht.launch.py")


def arguments(**values: Any) -> list[str]:
    return [f"{name}:={value}" for name, value in {"steps": 4, "first_seed": 0, **values}.items()]


@pytest.mark.parametrize(("mode", "factor"), [("lockstep", 1.0), ("realtime", 2.0)])
def test_one_launch_runs_all_episodes_and_ends(
    graph: Any, checkpoint: Path, tmp_path: Path, mode: str, factor: float
) -> None:
    values = arguments(
        checkpoint=checkpoint,
        output_dir=tmp_path,
        mode=mode,
        real_time_factor=factor,
        episodes=2,
        max_steps=20,
        sampler="ddpm",
    )
    output = graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["steps"] for row in summary["episodes"]] == [20, 20]
    assert summary["failures"] == {}
    assert summary["policy_parameters"]["sampler.name"] == "ddpm"
    assert summary["policy_parameters"]["synchronous"] is (mode == "lockstep")
    assert "mean maximum reward" in output
    assert "Traceback" not in output
    assert "has died" not in output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors: no such checkpoint file"),
        ({"mode": "turbo"}, "mode must be realtime or lockstep, got 'turbo'"),
        ({"episodes": 0}, "Parameter episodes out of range"),
    ],
)
def test_a_launch_that_cannot_work_ends_with_an_error(
    graph: Any, checkpoint: Path, tmp_path: Path, value: dict[str, Any], message: str
) -> None:
    launch = graph.start(
        "ros2",
        "launch",
        LAUNCH_FILE,
        *arguments(**{"checkpoint": checkpoint, "output_dir": tmp_path, **value}),
    )
    graph.spin_until(lambda: launch.poll() is not None, "the launch ends", timeout=180)
    assert launch.returncode == 1
    assert message in graph.output(launch)


def test_all_arguments_are_described(graph: Any) -> None:
    output = graph.run("ros2", "launch", LAUNCH_FILE, "--show-args")
    for name in (
        "checkpoint",
        "sampler",
        "iterations",
        "episodes",
        "mode",
        "real_time_factor",
        "rviz",
        "record",
    ):
        assert f"'{name}':" in output
    assert "no description given" not in output


def test_an_episode_can_be_recorded(graph: Any, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("ros2bag", reason="needs rosbag2 (ros-jazzy-rosbag2)")
    values = arguments(
        checkpoint=checkpoint,
        output_dir=tmp_path / "out",
        mode="lockstep",
        episodes=1,
        max_steps=20,
        record="true",
    )
    graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    (bag,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    recorded = graph.run("ros2", "bag", "info", str(bag))
    for topic in ("/joint_states", "/block/keypoints", "/pusher_controller/joint_trajectory", "/clock"):
        assert f"Topic: {topic} |" in recorded
