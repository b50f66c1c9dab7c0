from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from ros_graph import PATIENCE

from policy import DiffusionPolicy
from policy.networks.lora import add_lora
from policy.pcm import PCM, save_pcm, weights_sha256

LAUNCH_FOLDER = Path(__file__).resolve().parents[3] / "launch"
LAUNCH_FILE = str(LAUNCH_FOLDER / "pusht.launch.py")


def arguments(**values: Any) -> list[str]:
    defaults = {"solver": "ddim", "steps": 4, "engine": "eager", "first_seed": 0}
    return [f"{name}:={value}" for name, value in {**defaults, **values}.items()]


@pytest.mark.parametrize("mode", ["lockstep", "realtime"])
def test_one_launch_runs_all_episodes_and_ends(
    graph: Any, checkpoint: Path, tmp_path: Path, mode: str
) -> None:
    values = arguments(
        checkpoint=checkpoint,
        output_dir=tmp_path,
        mode=mode,
        episodes=2,
        max_steps=20,
        solver="ddpm",
    )
    output = graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["steps"] for row in summary["episodes"]] == [20, 20]
    assert summary["failures"] == {}
    assert summary["policy_parameters"]["sampler.solver"] == "ddpm"
    assert summary["policy_parameters"]["synchronous"] is (mode == "lockstep")
    assert "mean maximum reward" in output
    assert "Traceback" not in output
    assert "has died" not in output


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"checkpoint": "nowhere.safetensors"}, "nowhere.safetensors: no such checkpoint file"),
        ({"mode": "turbo"}, "mode must be realtime or lockstep, got 'turbo'"),
        ({"steps": "few"}, "steps must be a whole number, got 'few'"),
        ({"method": "pcm"}, "sampler.method=pcm needs a PCM, and the policy has none"),
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


def test_interrupted_it_ends_with_0_and_keeps_the_episodes_that_are_over(
    graph: Any, checkpoint: Path, tmp_path: Path
) -> None:
    values = arguments(
        checkpoint=checkpoint, output_dir=tmp_path, mode="lockstep", episodes=10**5, max_steps=8
    )
    launch = graph.start("ros2", "launch", LAUNCH_FILE, *values)
    graph.spin_until(lambda: graph.output(launch).count("maximum reward") >= 2, "two episodes", timeout=180)
    os.killpg(launch.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
    assert launch.wait(PATIENCE) == 0
    assert len(json.loads((tmp_path / "summary.json").read_text())["episodes"]) >= 2
    assert "Traceback" not in graph.output(launch)
    with pytest.raises(ProcessLookupError):
        os.killpg(launch.pid, 0)


@pytest.mark.parametrize("killed", ["episode_runner", "policy_node"])
def test_a_process_that_dies_ends_the_launch_with_an_error(
    graph: Any, checkpoint: Path, tmp_path: Path, killed: str
) -> None:
    values = arguments(checkpoint=checkpoint, output_dir=tmp_path, mode="lockstep", episodes=10**5)
    launch = graph.start("ros2", "launch", LAUNCH_FILE, *values)
    graph.spin_until(lambda: "[episode_runner-3]: process started" in graph.output(launch), "all run")
    (pid,) = re.findall(rf"\[{killed}-\d\]: process started with pid \[(\d+)\]", graph.output(launch))
    os.kill(int(pid), signal.SIGKILL)
    assert launch.wait(PATIENCE) == 1
    assert re.search(rf"{killed}-\d ended with -9", graph.output(launch))


@pytest.fixture
def checkpoint_with_pcm(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with a PCM beside it, which was trained for what nothing else stands for."""
    own = tmp_path / "own.safetensors"
    shutil.copy(checkpoint, own)
    network = DiffusionPolicy.load(own).network
    sha256 = weights_sha256(network)
    add_lora(network, rank=2, targets=".*", generator=torch.Generator().manual_seed(0))
    pcm = PCM(
        network,
        weights="lora",
        base_sha256=sha256,
        solver="dpmpp_2m",
        steps=4,
        jacobian="drift",
        start="repeated",
        iterations=2,
        rank=2,
        targets=".*",
    )
    save_pcm(tmp_path / "own_pcm.safetensors", pcm)
    return own


@pytest.mark.parametrize("node", ["/policy", "/**"])
def test_the_method_pcm_alone_is_right_with_a_pcm_beside_the_checkpoint(
    graph: Any, checkpoint_with_pcm: Path, tmp_path: Path, node: str
) -> None:
    parameters = tmp_path / "parameters.yaml"
    # Of another method, as those of config/pusht.yaml are: neither gets in the way.
    sampler = "{method: sequential, solver: ddpm, steps: 7}"
    parameters.write_text(f"{node}: {{ros__parameters: {{seed: 5, sampler: {sampler}}}}}")
    values = [
        f"checkpoint:={checkpoint_with_pcm}",
        f"output_dir:={tmp_path / 'out'}",
        f"params_file:={parameters}",
        *("mode:=lockstep", "engine:=plain", "episodes:=1", "max_steps:=16", "method:=pcm", "iterations:=3"),
    ]
    output = graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    used = "stop.iterations=3, picard.jacobian=drift, picard.start=repeated, pcm.space=parameter"
    assert f"own.safetensors, sampler pcm, dpmpp_2m, T = 4 ({used})" in output
    assert "trained for" not in output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["policy_parameters"]["pcm"] == str(tmp_path / "own_pcm.safetensors")
    assert summary["policy_parameters"]["sampler.solver"] == "auto"
    assert summary["policy_parameters"]["sampler.steps"] == 0


def test_a_pcm_in_params_file_comes_before_the_one_beside_the_checkpoint(
    graph: Any, checkpoint_with_pcm: Path, tmp_path: Path
) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**: {ros__parameters: {pcm: nowhere.safetensors}}")
    values = arguments(checkpoint=checkpoint_with_pcm, output_dir=tmp_path / "out", params_file=parameters)
    launch = graph.start("ros2", "launch", LAUNCH_FILE, *values)
    graph.spin_until(lambda: launch.poll() is not None, "the launch ends", timeout=180)
    assert launch.returncode == 1
    assert "nowhere.safetensors: no such checkpoint file" in graph.output(launch)


def test_what_a_pcm_was_not_trained_for_is_warned_of(
    graph: Any, checkpoint_with_pcm: Path, tmp_path: Path
) -> None:
    values = arguments(
        checkpoint=checkpoint_with_pcm,
        output_dir=tmp_path / "out",
        mode="lockstep",
        episodes=1,
        max_steps=16,
        method="pcm",
    )
    output = graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    assert "sampler.solver is ddim, the PCM was trained for dpmpp_2m" in output


def test_a_checkpoint_in_params_file_is_the_one_that_runs(
    graph: Any, checkpoint: Path, tmp_path: Path
) -> None:
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text(f"policy: {{ros__parameters: {{checkpoint: {checkpoint}}}}}")
    values = arguments(
        output_dir=tmp_path / "out", mode="lockstep", episodes=1, max_steps=16, params_file=parameters
    )
    graph.run("ros2", "launch", LAUNCH_FILE, *values, timeout=180)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["policy_parameters"]["checkpoint"] == str(checkpoint)
    assert summary["policy_parameters"]["pcm"] == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("policy: {ros__parameters: {checkpoint: my.safetensors}}", True),
        ("/**:\n  ros__parameters:\n    checkpoint: 'my.safetensors'  # mine", True),
        ("/**:\n  ros__parameters:\n    # checkpoint: my.safetensors\n    seed: 1", False),
        ('/**:\n  ros__parameters:\n    checkpoint: ""\n    seed: 1', False),  # the template
        ("robot: {policy: {ros__parameters: {checkpoint: my.safetensors}}}", True),
        ("", False),
    ],
)
def test_params_file_names_a_checkpoint_where_it_has_a_value(text: str, named: bool) -> None:
    launch_file = runpy.run_path(LAUNCH_FILE)
    assert launch_file["_named"]("checkpoint", yaml.safe_load(text)) == ("my.safetensors" if named else "")


@pytest.mark.parametrize("file", ["policy.launch.py", "pusht.launch.py"])
@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, {}),
        ({"steps": "10"}, {"sampler.steps": 10}),
        ({"solver": "ddim"}, {"sampler.solver": "ddim"}),
        ({"iterations": "2"}, {"sampler.stop.iterations": 2}),
        ({"method": "pcm"}, {"sampler.method": "pcm", "sampler.solver": "auto", "sampler.steps": 0}),
        (
            {"method": "picard", "solver": "ddim"},
            {"sampler.method": "picard", "sampler.solver": "ddim", "sampler.steps": 0},
        ),
        (
            {"method": "pcm", "steps": "5", "iterations": "2"},
            {
                "sampler.method": "pcm",
                "sampler.solver": "auto",
                "sampler.steps": 5,
                "sampler.stop.iterations": 2,
            },
        ),
    ],
)
def test_a_method_takes_solver_and_steps_from_the_arguments_alone(
    file: str, arguments: dict[str, str], parameters: dict[str, Any]
) -> None:
    launch_file = runpy.run_path(str(LAUNCH_FOLDER / file))
    values = dict.fromkeys(("method", "solver", "steps", "iterations"), "")
    assert launch_file["_sampler"](values | arguments) == parameters


def test_rviz_is_started_where_it_is_installed_and_named_where_it_is_not(graph: Any) -> None:
    launch = graph.start("ros2", "launch", LAUNCH_FILE, "rviz:=true", "checkpoint:=nowhere.safetensors")
    graph.spin_until(lambda: launch.poll() is not None, "the launch ends", timeout=180)
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        expected = (
            f"rviz:=true needs the ROS package rviz2 (apt install ros-{os.environ['ROS_DISTRO']}-rviz2)"
        )
    else:
        expected = "[rviz2-"
    assert expected in graph.output(launch)
    assert launch.returncode == 1


def test_rviz_is_told_of_topics_that_are_there() -> None:
    displays = yaml.safe_load((LAUNCH_FOLDER.parent / "config" / "pusht.rviz").read_text())
    topics = {
        display["Topic"]["Value"]
        for display in displays["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    assert topics == {"/pusht_simulator/markers", "/policy/predicted_path"}


def test_all_arguments_are_described(graph: Any) -> None:
    output = graph.run("ros2", "launch", LAUNCH_FILE, "--show-args")
    for name in (
        "checkpoint",
        "pcm",
        "method",
        "solver",
        "steps",
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
