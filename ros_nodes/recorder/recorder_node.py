"""Records demonstrations: the messages of all topics in a robot's file, one bag an episode."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_srvs.srv import Trigger

from policy.robot.description import Source
from policy.robot.message_types import Message
from policy.robot.pictures import MOST_PICTURE_BYTES
from policy.robot.robot_file import load_robot
from policy.robot.times import SECOND
from ros_nodes.diagnostics import DIAGNOSTIC_PERIOD, diagnostic_message
from ros_nodes.node_process import run_node
from ros_nodes.reception.bounded_subscription import MOST_BYTES, subscribe_bounded
from ros_nodes.reception.clock import ClockGuard
from ros_nodes.reception.message_classes import message_class
from ros_nodes.recorder.episode_bag import (
    STORAGES,
    EpisodeBag,
    RecordingError,
    RecordingFolder,
    best_storage,
)
from ros_nodes.recorder.topic_monitor import TopicMonitor

AUTO = "auto"
QUEUE = 1000
"""Messages of a topic that may wait for the recorder: 2 s at 500 Hz."""

PICTURE_QUEUE = 30
"""Pictures of a topic that may wait, likewise: 1 s at 30 Hz, 30 MB at 640×480."""

PARAMETERS = (
    ("robot", "", "YAML file of the robot, as the policy node takes it"),
    ("output", "", "folder in which the episodes appear"),
    ("rate", 0.0, "rate in Hz that the sources must keep; 0: that of the robot's control_period, or none"),
    ("insist", False, "whether an episode may begin although a topic is silent, too slow or stamped wrongly"),
    ("storage", AUTO, "storage of rosbag2: mcap, sqlite3, or auto for mcap where it is installed"),
)
FASTEST = 10_000.0  # Hz


class Recorder(ClockGuard, Node):
    """Listens to the robot's topics, and writes what it hears while an episode runs.

    Raises:
        ValueError: for a robot or an output that cannot be recorded.
    """

    def __init__(self, name: str = "recorder") -> None:
        super().__init__(name)
        for parameter, default, description in PARAMETERS:
            descriptor = ParameterDescriptor(description=description)
            if parameter == "rate":
                descriptor.floating_point_range = [FloatingPointRange(from_value=0.0, to_value=FASTEST)]
            self.declare_parameter(parameter, default, descriptor)
        robot_file = Path(self._value("robot"))
        if not self._value("robot") or not self._value("output"):
            raise ValueError("parameters robot and output must name a robot's file and a folder")
        robot = load_robot(robot_file)
        self._robot_text = robot_file.read_text(encoding="utf-8")
        self._storage = self._chosen_storage()
        self._sources = robot.sources
        self._command = robot.command
        self._monitors = self._make_monitors(robot.control_period)
        self._topics: dict[str, str] = {}
        self._bag: EpisodeBag | None = None
        self._began_ns = 0
        self._saved = 0
        self._discarded = 0
        self._folder = RecordingFolder(Path(self._value("output")))
        self._subscribe()
        for service, answer in (("start", self._start), ("save", self._save), ("discard", self._discard)):
            self.create_service(Trigger, f"~/{service}", partial(self._answer, answer))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Wall time: a simulated clock may stand still.
        self.create_timer(DIAGNOSTIC_PERIOD, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        recorded = ", ".join(self._topics)
        self.get_logger().info(f"ready to record {recorded} into {self._folder.path} ({self._storage})")

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _chosen_storage(self) -> str:
        storage = self._value("storage")
        if storage == AUTO:
            return best_storage()
        if storage not in STORAGES:
            raise ValueError(
                f"parameter storage must be one of {', '.join((AUTO, *STORAGES))}, got {storage!r}"
            )
        return str(storage)

    def _make_monitors(self, control_period: float) -> dict[str, TopicMonitor]:
        rate = self._value("rate") or (1 / control_period if control_period else 0.0)
        period_ns = round(SECOND / rate) if rate else None
        simulated = bool(self._value("use_sim_time"))
        monitors = {
            source.name: TopicMonitor(source, period_ns, may_lead=simulated) for source in self._sources
        }
        for monitor in monitors.values():
            if monitor.camera is not None and monitor.camera.blind:
                self.get_logger().warning(f"recorded without a look at it: {monitor.camera.blind}")
        if self._command is not None:  # which may be silent, and as slow as the person who commands
            monitors[self._command.name] = TopicMonitor(self._command, None, may_lead=simulated)
        return monitors

    def _subscribe(self) -> None:
        """One subscription a topic, even if several sources are on it."""
        by_topic: dict[str, list[TopicMonitor]] = {}
        for monitor in self._monitors.values():
            source = monitor.source
            topic = self.resolve_topic_name(source.topic)
            if self._topics.setdefault(topic, _full_name(source)) != _full_name(source):
                raise ValueError(
                    f"{source.name}: {topic} has two types, {self._topics[topic]} and {source.type}"
                )
            by_topic.setdefault(topic, []).append(monitor)
        for topic, monitors in by_topic.items():
            sources = [monitor.source for monitor in monitors]
            reliable = all(source.reliability == "reliable" for source in sources)
            subscribe_bounded(
                self,
                message_class(sources[0].type),
                topic,
                callback=partial(self._on_message, monitors),
                refuse=partial(self._on_refused, monitors),
                keep=partial(self._keep, topic),
                most_bytes=MOST_PICTURE_BYTES if sources[0].is_camera else MOST_BYTES,
                qos=QoSProfile(
                    depth=PICTURE_QUEUE if sources[0].is_camera else QUEUE,
                    reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                ),
            )

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _keep(self, topic: str, serialized: bytes) -> None:
        if self._bag is None:
            return
        try:
            self._bag.write(topic, serialized, self._now())
        except RuntimeError as error:  # of rosbag2, for instance of a full disk
            self.get_logger().error(f"{self._discard()}, which cannot be written: {error}")

    def _on_message(self, monitors: Sequence[TopicMonitor], message: Message) -> None:
        now = self._now()
        for monitor in monitors:
            monitor.add(message, now)

    def _on_refused(self, monitors: Sequence[TopicMonitor], reason: str, detail: str) -> None:
        for monitor in monitors:
            monitor.refuse(f"{reason}: {detail}", self._now())

    def _answer(
        self, answer: Callable[[], str], request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        try:
            response.message = answer()
            response.success = True
            self.get_logger().info(response.message)
        except (RecordingError, OSError, RuntimeError) as error:  # rosbag2 raises the last
            response.message = str(error)
            self.get_logger().warning(response.message)
        return response

    def _start(self) -> str:
        if self._bag is not None:
            raise RecordingError(f"{self._bag.name} is being recorded: save or discard it first")
        faults = self._faults()
        if faults and not self._value("insist"):
            raise RecordingError(f"not started, {'; '.join(faults)} (insist:=true starts nevertheless)")
        self._bag = EpisodeBag(
            self._folder, topics=self._topics, storage=self._storage, robot=self._robot_text
        )
        self._began_ns = self._now()
        for monitor in self._monitors.values():
            monitor.restart()
        return f"recording {self._bag.name}" + (f", although {'; '.join(faults)}" if faults else "")

    def _save(self) -> str:
        bag, self._bag = self._running(), None
        said = self._said_of(bag)
        path = bag.save()
        self._saved += 1
        return f"saved {path}: {said}"

    def _discard(self) -> str:
        bag, self._bag = self._running(), None
        bag.discard()
        self._discarded += 1
        return f"discarded {bag.name}"

    def _running(self) -> EpisodeBag:
        if self._bag is None:
            raise RecordingError("nothing is being recorded: start first")
        return self._bag

    def _said_of(self, bag: EpisodeBag) -> str:
        """What is in an episode, and what may be wrong with it."""
        seconds = (self._now() - self._began_ns) / SECOND
        said = [f"{seconds:.1f} s", f"{bag.messages} messages"]
        for name, monitor in self._monitors.items():
            if not monitor.messages:
                said.append(f"nothing from {name}")
            if monitor.refused:
                said.append(f"{monitor.refused} of {name} cannot be used")
            gap = monitor.largest_gap_ns / SECOND
            if monitor.source is not self._command and gap > monitor.source.max_age:
                said.append(f"{name} paused for {gap:.2f} s")
        return ", ".join(said)

    def _faults(self) -> list[str]:
        """What is wrong with the topics now."""
        now = self._now()
        faults = [self._monitors[source.name].fault(now) for source in self._sources]
        if self._command is not None:
            faults.append(self._monitors[self._command.name].refusal(now))
        return [fault for fault in faults if fault is not None]

    def _report(self) -> None:
        faults = self._faults()
        state = "idle" if self._bag is None else "recording"
        values = {"state": state, "saved": str(self._saved), "discarded": str(self._discarded)}
        if self._bag is not None:
            values["episode"] = self._bag.name
            values["seconds"] = f"{(self._now() - self._began_ns) / SECOND:.1f}"
            values["messages"] = str(self._bag.messages)
        for name, monitor in self._monitors.items():
            rate = monitor.rate()
            values[f"rate_hz.{name}"] = "none" if rate is None else f"{rate:.1f}"
            if monitor.camera is not None:
                size = monitor.camera.size
                values[f"size_px.{name}"] = "none" if size is None else "×".join(map(str, size))
        values |= self.clock_refusals.values("rejected_times")
        message = diagnostic_message(
            name=self.get_fully_qualified_name(),
            hardware_id=str(self._value("robot")),
            level=DiagnosticStatus.WARN if faults else DiagnosticStatus.OK,
            summary="; ".join(faults) or state,
            values=values,
            stamp=self.get_clock().now().to_msg(),
        )
        self._diagnostics.publish(message)

    def destroy_node(self) -> None:
        """End: an episode that was not saved is discarded."""
        if self._bag is not None:
            get_logger("recorder").warning(self._discard())
        self._folder.close()
        super().destroy_node()


def _full_name(source: Source) -> str:
    return source.type.replace("/", "/msg/", 1)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted."""
    return run_node(Recorder, "recorder", args)


if __name__ == "__main__":
    sys.exit(main())
