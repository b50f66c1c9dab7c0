"""Unmodified command line tools of ROS, each as a process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lifecycle_msgs.srv import GetState
from policy_peer import observation
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_graph import PATIENCE

MODULE = (sys.executable, "-m", "ros_nodes.policy_node.node")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def policy(start_policy: Callable[..., Any]) -> Any:
    policy = start_policy(use_sim_time=False)
    policy.graph.spin_until(lambda: policy.diagnostics, "the node is up")
    return policy


def test_ros2_lifecycle_brings_the_node_up_and_down(policy: Any) -> None:
    run = policy.graph.run
    assert "unconfigured" in run("ros2", "lifecycle", "get", "/policy", "--no-daemon")
    assert "configure" in run("ros2", "lifecycle", "list", "/policy", "--no-daemon")
    for transition, state in (
        ("configure", "inactive"),
        ("activate", "active"),
        ("deactivate", "inactive"),
        ("cleanup", "unconfigured"),
        ("shutdown", "finalized"),
    ):
        output = run("ros2", "lifecycle", "set", "/policy", transition, "--no-daemon")
        assert "Transitioning successful" in output
        assert policy.state() == state


def test_ros2_node_info_lists_the_interfaces(policy: Any) -> None:
    policy.activate()
    info = policy.graph.run("ros2", "node", "info", "/policy", "--no-daemon", "--spin-time", "5")
    for interface in (
        "/block/keypoints: geometry_msgs/msg/PolygonStamped",
        "/joint_states: sensor_msgs/msg/JointState",
        "/pusher_controller/joint_trajectory: trajectory_msgs/msg/JointTrajectory",
        "/policy/predicted_path: visualization_msgs/msg/MarkerArray",
        "/diagnostics: diagnostic_msgs/msg/DiagnosticArray",
        "/policy/reset: std_srvs/srv/Trigger",
        "/policy/change_state: lifecycle_msgs/srv/ChangeState",
    ):
        assert interface in info


def test_ros2_param_sets_while_active_and_dumps_what_starts_another_node_with_changes(
    policy: Any, tmp_path: Path
) -> None:
    policy.activate()
    run = policy.graph.run
    assert "successful" in run("ros2", "param", "set", "/policy", "sampler.steps", "7", "--no-daemon")
    assert "Integer value is: 7" in run("ros2", "param", "get", "/policy", "sampler.steps", "--no-daemon")
    dumped = run("ros2", "param", "dump", "/policy", "--no-daemon")
    parameters = yaml.safe_load(dumped)["/policy"]["ros__parameters"]
    assert parameters["sampler"]["steps"] == 7
    file = tmp_path / "dumped.yaml"
    file.write_text(dumped)
    policy.graph.stop(policy.process)
    again = policy.graph.start(
        "ros_nodes.policy_node.node", "--ros-args", "--params-file", str(file), "-p", "seed:=5"
    )
    policy.process = again
    policy.activate()
    assert policy.state() == "active"
    request = GetParameters.Request(names=["sampler.steps", "seed"])
    values = policy.graph.call(GetParameters, "/policy/get_parameters", request).values
    assert [value.integer_value for value in values] == [7, 5], "what the command line says last wins"


def test_ros2_topic_hz_measures_the_chunks(policy: Any) -> None:
    policy.activate()
    process = policy.graph.start("ros2", "topic", "hz", "/pusher_controller/joint_trajectory")
    policy.graph.spin_until(
        lambda: (
            policy.observe(policy.now(), observation(0)) or "average rate:" in policy.graph.output(process)
        ),
        "a rate",
    )
    process.send_signal(signal.SIGINT)


def test_the_template_starts_a_node_for_its_own_robot(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(
        program=(*MODULE, "--ros-args", "--params-file", str(ROOT / "config" / "policy.yaml"))
    )
    names = ["arm", "gripper"]
    policy.graph.set_parameters("policy", observation_sources=names)
    assert not policy.transition("configure")
    reason = "part 'keypoints' of the task 'pusht' has no source: observation_sources are arm, gripper"
    assert reason in policy.graph.output(policy.process)


def test_policy_launch_brings_the_node_up(graph: Any, checkpoints: Path, tmp_path: Path) -> None:
    graph.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), graph.env["PATH"]])
    parameters = tmp_path / "parameters.yaml"
    robot = yaml.safe_load((ROOT / "config" / "pusht.yaml").read_text())
    robot["/**"]["ros__parameters"] |= {
        "use_sim_time": True,
        "seed": 5,
        "sampler": {"solver": "ddpm", "steps": 7, "picard": {"jacobian": "drift"}},
    }
    parameters.write_text(yaml.safe_dump(robot))
    launched = graph.start(
        "ros2",
        "launch",
        str(ROOT / "launch" / "policy.launch.py"),
        f"checkpoint:={checkpoints / 'tiny.safetensors'}",
        f"params_file:={parameters}",
        "namespace:=robot",
        "autostart:=True",
        "method:=picard",
        "iterations:=2",
    )

    def state() -> str:
        return str(graph.call(GetState, "/robot/policy/get_state").current_state.label)

    graph.spin_until(lambda: state() == "active", "the node is active")
    expected = {
        "use_sim_time": True,
        "seed": 5,
        "sampler.method": "picard",
        "sampler.solver": "auto",
        "sampler.steps": 0,
        "sampler.stop.iterations": 2,
        "sampler.picard.jacobian": "drift",
    }
    request = GetParameters.Request(names=list(expected))
    values = graph.call(GetParameters, "/robot/policy/get_parameters", request).values
    assert [parameter_value_to_python(value) for value in values] == list(expected.values())
    os.killpg(launched.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
    assert launched.wait(PATIENCE) == 0
    assert "Traceback" not in graph.output(launched)
