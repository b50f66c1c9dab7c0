"""The recorder beside the simulator, whose pusher somebody moves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from policy.robot.messages import command_points, measurement
from policy.robot.parameters import robot_from_parameters
from policy.robot.robot_file import load_robot

pytest.importorskip("rosbag2_py", reason="needs rosbag2 (ros-jazzy-rosbag2)")

ROBOT = Path(__file__).resolve().parents[3] / "config" / "pusht.yaml"
COMMANDS = "/pusher_controller/joint_trajectory"


class Recording:
    """A recorder in a process of its own, and what it answers."""

    def __init__(self, graph: Any, output: Path, **parameters: Any) -> None:
        self.graph = graph
        self.output = output
        self.statuses: list[Any] = []
        graph.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.process = graph.start(
            "ros_nodes.recorder.recorder_node", **{"robot": ROBOT, "output": output, **parameters}
        )

    def _on_diagnostics(self, message: Any) -> None:
        self.statuses += [status for status in message.status if status.name == "/recorder"]

    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.statuses[-1].values} if self.statuses else {}

    def call(self, service: str) -> tuple[bool, str]:
        answer = self.graph.call(Trigger, f"/recorder/{service}")
        return answer.success, answer.message

    def wait_until_ready(self) -> None:
        """Until nothing is wrong with the topics."""
        self.graph.spin_until(
            lambda: self.statuses and self.statuses[-1].message in ("idle", "recording"),
            "the recorder is ready",
        )

    def wait_for_messages(self, count: int) -> None:
        self.graph.spin_until(lambda: int(self.values().get("messages", 0)) >= count, f"{count} messages")

    def wait_for_fault(self, part: str) -> None:
        self.graph.spin_until(lambda: self.statuses and part in self.statuses[-1].message, f"status {part!r}")


@pytest.fixture
def record(graph: Any, tmp_path: Path) -> Callable[..., Recording]:
    return lambda **parameters: Recording(graph, tmp_path / "episodes", **parameters)


@pytest.fixture
def simulated(graph: Any, record: Callable[..., Recording]) -> Recording:
    graph.start("ros_nodes.simulator.simulator_node")
    recording = record(use_sim_time=True)
    assert graph.call(Trigger, "/pusht_simulator/reset").success
    return recording


def trajectory(x: float, y: float) -> JointTrajectory:
    point = JointTrajectoryPoint(positions=[x, y], time_from_start=Duration(nanosec=100_000_000))
    return JointTrajectory(joint_names=["pusher_x", "pusher_y"], points=[point])


def test_episodes_are_saved_discarded_and_read_back(simulated: Recording, graph: Any) -> None:
    recording = simulated
    commands = graph.publisher(JointTrajectory, COMMANDS)
    observed = graph.listen(JointState, "/joint_states")
    recording.wait_until_ready()
    assert recording.call("save") == (False, "nothing is being recorded: start first")
    for number, verdict in enumerate(("save", "discard", "save")):
        name = "episode_0000" if number == 0 else "episode_0001"
        assert recording.call("start") == (True, f"recording {name}")
        assert recording.call("start")[1] == f"{name} is being recorded: save or discard it first"
        commands.publish(trajectory(100.0 + number, 0.1))
        recording.wait_for_messages(12)
        assert not (recording.output / name).exists()
        succeeded, said = recording.call(verdict)
        assert succeeded
        assert "nothing from" not in said
        assert said.startswith("saved" if verdict == "save" else f"discarded {name}")
        assert (recording.output / name).exists() is (verdict == "save")
        graph.spin_until(lambda: recording.values()["state"] == "idle", "it is idle")
    assert (recording.values()["saved"], recording.values()["discarded"]) == ("2", "1")
    assert recording.call("start")[0]
    assert graph.stop(recording.process, signal.SIGTERM) == 0
    assert sorted(path.name for path in recording.output.iterdir()) == [
        ".recorder.lock",
        "episode_0000",
        "episode_0001",
    ]  # not the episode that it was interrupted in
    assert "discarded episode_0002" in graph.output(recording.process)
    robot, store = load_robot(ROBOT), get_typestore(Stores.ROS2_JAZZY)
    positions = {
        (message.header.stamp.sec, message.header.stamp.nanosec): tuple(message.position)
        for message in observed
    }
    for number, first_command in (("0000", 100.0), ("0001", 102.0)):
        bag = recording.output / f"episode_{number}"
        metadata = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        file = yaml.safe_load(metadata["custom_data"]["robot"])
        assert robot_from_parameters(file["/**"]["ros__parameters"]) == robot
        seen: dict[str, int] = {}
        with Reader(bag) as reader:
            for connection, logged, raw in reader.messages():
                message = store.deserialize_cdr(raw, connection.msgtype)
                seen[connection.topic] = seen.get(connection.topic, 0) + 1
                if connection.topic == "/joint_states":
                    stamp, values = measurement(message, robot.sources[1], size=2, now_ns=logged)
                    assert abs(stamp - logged) < 10**9
                    assert tuple(values) == positions[message.header.stamp.sec, message.header.stamp.nanosec]
                if connection.topic == COMMANDS:
                    assert robot.command is not None
                    ((due, values),) = command_points(message, robot.command, size=2, now_ns=logged)
                    assert due == logged + 100_000_000
                    np.testing.assert_array_equal(values, [first_command, 0.1])
        assert seen.keys() == {"/block/keypoints", "/joint_states", COMMANDS}
        assert seen[COMMANDS] == 1
        assert "Topic: /joint_states | Type: sensor_msgs/msg/JointState" in graph.run(
            "ros2", "bag", "info", str(bag)
        )
        assert min(seen["/block/keypoints"], seen["/joint_states"]) >= 4


def test_a_topic_that_is_silent_is_said_before_an_episode_begins(
    record: Callable[..., Recording], graph: Any
) -> None:
    recording = record()
    recording.wait_for_fault("pusher: nothing received on joint_states")
    succeeded, said = recording.call("start")
    assert not succeeded
    assert said.startswith("not started, keypoints: nothing received on block/keypoints; pusher: nothing")
    graph.set_parameters("recorder", insist=True)
    succeeded, said = recording.call("start")
    assert succeeded
    assert said.startswith("recording episode_0000, although keypoints: nothing received")
    assert "nothing from keypoints" in recording.call("save")[1]


def test_a_topic_that_is_too_slow_or_stamped_wrongly_is_said(
    record: Callable[..., Recording], graph: Any
) -> None:
    recording = record(rate=100.0)
    publisher = graph.publisher(JointState, "/joint_states")

    def send(**changes: Any) -> bool:
        message = JointState(**{"name": ["pusher_x", "pusher_y"], "position": [1.0, 2.0], **changes})
        publisher.publish(message)
        graph.spin_for(0.05)
        return bool(recording.statuses)

    graph.spin_until(
        lambda: send() and "slower than the 100 Hz" in recording.statuses[-1].message, "it is too slow"
    )
    graph.spin_until(
        lambda: send(position=[1.0]) and "pusher: 1 numbers in position" in recording.statuses[-1].message,
        "it is too short",
    )
    late = JointState().header
    late.stamp.sec = 1

    def is_late() -> bool:
        return send(header=late) and "max_age is 0.500 s (is use_sim_time" in recording.statuses[-1].message

    graph.spin_until(is_late, "it is too old")


def test_what_a_killed_recorder_left_is_removed_and_its_folder_free(
    record: Callable[..., Recording], graph: Any
) -> None:
    recording = record(insist=True)
    assert recording.call("start")[0]
    second = record()
    graph.spin_until(lambda: second.process.poll() is not None, "the second recorder ends")
    assert second.process.returncode == 1
    assert "another recorder writes to it" in graph.output(second.process)
    recording.process.kill()
    recording.process.wait()
    assert any(path.name.endswith(".tmp") for path in recording.output.iterdir())
    third = record(insist=True)
    graph.spin_until(lambda: "ready to record" in graph.output(third.process), "the third recorder is ready")
    assert [path.name for path in recording.output.iterdir()] == [".recorder.lock"]


def test_what_cannot_be_recorded_ends_the_process_with_one_line(graph: Any, tmp_path: Path) -> None:
    output = tmp_path / "episodes"
    cases: dict[str, dict[str, Any]] = {
        "nowhere.yaml: no such robot file": {"robot": "nowhere.yaml", "output": output},
        "parameters robot and output must name a robot's file and a folder": {"robot": ROBOT},
        "parameter storage must be one of auto, mcap, sqlite3, got 'paper'": {
            "robot": ROBOT,
            "output": output,
            "storage": "paper",
        },
        "/proc/episodes: No such file or directory": {"robot": ROBOT, "output": "/proc/episodes"},
        "out of range": {"robot": ROBOT, "output": output, "rate": -1.0},
    }
    processes = {
        message: graph.start("ros_nodes.recorder.recorder_node", **parameters)
        for message, parameters in cases.items()
    }
    for message, process in processes.items():
        graph.spin_until(lambda process=process: process.poll() is not None, "the process ends")
        assert process.returncode == 1
        assert message in graph.output(process)
        assert "Traceback" not in graph.output(process)
