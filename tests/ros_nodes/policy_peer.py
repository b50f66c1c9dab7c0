"""What a robot sends to a policy node and hears from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point32, PolygonStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter, parameter_value_to_python
from ros_graph import RosGraph
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

STEP = 100_000_000
"""A control period in ns."""


def observation(number: float) -> NDArray[np.float64]:
    """An observation (20,) inside the range of the tests' policies and of the shipped one, different by number."""
    return 100.0 + 10 * np.arange(20) + number


class PolicyPeer:
    """The other side of a policy node.

    Args:
        graph: to talk through.
        namespace: of the node.
        by_topic: whether the node's chunks come by topic.
    """

    def __init__(self, graph: RosGraph, namespace: str = "", by_topic: bool = True) -> None:
        self.graph = graph
        self.by_topic = by_topic
        prefix = f"/{namespace}" if namespace else ""
        self.name = f"{prefix}/policy"
        self.chunk_topic = f"{prefix}/pusher_controller/joint_trajectory"
        self.keypoints = graph.node.create_publisher(PolygonStamped, f"{prefix}/block/keypoints", 10)
        self.pusher = graph.node.create_publisher(JointState, f"{prefix}/joint_states", 10)
        self.diagnostics: list[Any] = []
        graph.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.chunks: list[Any] = []
        graph.node.create_subscription(JointTrajectory, self.chunk_topic, self.chunks.append, 100)

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnostics += [status for status in message.status if status.name == self.name]

    def transition(self, label: str) -> bool:
        """Ask for a transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.graph.call(ChangeState, f"{self.name}/change_state", request).success)

    def state(self) -> str:
        return str(self.graph.call(GetState, f"{self.name}/get_state").current_state.label)

    def parameters(self, *names: str) -> dict[str, Any]:
        request = GetParameters.Request(names=names)
        values = self.graph.call(GetParameters, f"{self.name}/get_parameters", request).values
        return {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}

    def set_together(self, **values: Any) -> str:
        """Set parameters at once, with `__` for a dot in their names; why they are refused, empty if they are not."""
        request = SetParametersAtomically.Request(
            parameters=[
                Parameter(name.replace("__", "."), value=value).to_parameter_msg()
                for name, value in values.items()
            ]
        )
        result = self.graph.call(
            SetParametersAtomically, f"{self.name}/set_parameters_atomically", request
        ).result
        assert result.successful == (not result.reason)
        return str(result.reason)

    def activate(self) -> PolicyPeer:
        """Configure, activate, and wait until both sides know each other."""
        assert self.transition("configure"), self.graph.logs()
        assert self.transition("activate")
        for publisher in (self.keypoints, self.pusher):
            self.graph.spin_until(publisher.get_subscription_count, f"{self.name} listens")
        if self.by_topic:
            self.graph.spin_until(
                lambda: self.graph.node.count_publishers(self.chunk_topic), f"{self.name} advertises"
            )
        return self

    def stamp(self, stamp_ns: int) -> Any:
        return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def now(self) -> int:
        return int(self.graph.node.get_clock().now().nanoseconds)

    def send_keypoints(self, stamp_ns: int, values: Any, frame_id: str = "") -> None:
        message = PolygonStamped()
        message.header.stamp, message.header.frame_id = self.stamp(stamp_ns), frame_id
        pairs = np.reshape(np.asarray(values, float), (-1, 2)).tolist()
        message.polygon.points = [Point32(x=x, y=y) for x, y in pairs]
        self.keypoints.publish(message)

    def send_pusher(
        self, stamp_ns: int, values: Any, names: tuple[str, ...] = ("pusher_x", "pusher_y")
    ) -> None:
        message = JointState(name=list(names), position=list(map(float, values)))
        message.header.stamp = self.stamp(stamp_ns)
        self.pusher.publish(message)

    def observe(self, stamp_ns: int, values: Any, frame_id: str = "") -> None:
        """Send an observation (20,)."""
        self.send_keypoints(stamp_ns, values[:18], frame_id)
        self.send_pusher(stamp_ns, values[18:])

    def chunk(self, number: int) -> tuple[int, NDArray[np.float64]]:
        """Wait for a chunk; its stamp in ns and its positions (8, 2)."""
        self.graph.spin_until(lambda: len(self.chunks) > number, f"chunk {number}")
        message = self.chunks[number]
        stamp = message.header.stamp
        positions = np.array([list(point.positions) for point in message.points])
        return stamp.sec * 10**9 + stamp.nanosec, positions

    def values(self) -> dict[str, str]:
        """The newest diagnostics by name."""
        return {pair.key: pair.value for pair in self.diagnostics[-1].values} if self.diagnostics else {}

    def wait_for_engine(self, state: str) -> None:
        """Wait until the diagnostics say that of the engine."""
        self.graph.spin_until(lambda: self.values().get("engine_state") == state, f"the engine is {state}")

    def wait_for_value(self, key: str, minimum: int) -> None:
        """Wait until a count in the diagnostics is large enough."""
        self.graph.spin_until(lambda: int(self.values().get(key, 0)) >= minimum, f"{key} ≥ {minimum}")

    def wait_for_message(self, part: str) -> None:
        """Wait for a diagnostic whose message holds a text."""
        heard = len(self.diagnostics)
        self.graph.spin_until(
            lambda: any(part in status.message for status in self.diagnostics[heard:]), f"diagnostic {part!r}"
        )
