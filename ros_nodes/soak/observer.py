"""What a soak test hears from the nodes, and how soon the policy node answers it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from policy.robot.times import SECOND
from pusht_env.physics import CONTROL_HZ
from ros_nodes.commands.trajectory_messages import nanoseconds
from ros_nodes.soak.command_record import CommandRecord

POLICY = "policy"
ASKING_PERIOD = 0.2  # s
PATIENCE = 2.0  # s


@dataclass(frozen=True)
class Answer:
    """One call of a service, with the times of the call and of the answer by `time.perf_counter`, in s."""

    service: str
    sent: float
    answered: float

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


class SoakObserver(Node):
    """Listens, and calls a parameter service and a lifecycle service of the active policy node in turn.

    Attributes:
        has_begun: whether an episode has begun.
        diagnostics: newest diagnostics of the policy node, by name.
        answers: answers of the services.
        computing: for each chunk, the times of arrival of its observation and of itself.
        commands: what was commanded.
    """

    def __init__(self) -> None:
        super().__init__("soak")
        self.has_begun = False
        self.diagnostics: dict[str, str] = {}
        self.answers: list[Answer] = []
        self.computing: list[tuple[float, float]] = []
        self.commands = CommandRecord(round(SECOND / CONTROL_HZ))
        self._asked: list[float] = []
        self._alive = 0.0
        self._observed: dict[int, float] = {}
        self._calls = [
            (
                self.create_client(GetParameters, f"{POLICY}/get_parameters"),
                GetParameters.Request(names=["seed"]),
            ),
            (self.create_client(GetState, f"{POLICY}/get_state"), GetState.Request()),
        ]
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(Float64MultiArray, "pusht_simulator/episode", self._on_status, 100)
        self.create_subscription(JointState, "joint_states", self._on_observation, 100)
        self.create_subscription(JointTrajectory, "pusher_controller/joint_trajectory", self._on_chunk, 100)
        self.create_timer(ASKING_PERIOD, self._ask)

    def answers_while_computing(self) -> list[Answer]:
        """The answers to calls that were sent while the policy node computed a chunk."""
        return [
            answer
            for answer in self.answers
            if any(start <= answer.sent <= end for start, end in self.computing)
        ]

    def unanswered(self) -> int:
        """Number of calls without an answer, although the node lived on for a while."""
        return sum(sent < self._alive - PATIENCE for sent in self._asked) - sum(
            answer.sent < self._alive - PATIENCE for answer in self.answers
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.rpartition("/")[2] == POLICY:
                self._alive = time.perf_counter()
                self.diagnostics = {pair.key: pair.value for pair in status.values}

    def _on_status(self, message: Float64MultiArray) -> None:
        _, step, *_ = message.data
        self.has_begun |= step == 0

    def _on_observation(self, message: JointState) -> None:
        stamp = nanoseconds(message.header.stamp)
        self._observed.setdefault(stamp, time.perf_counter())
        self.commands.observe(stamp, message.position, message.velocity)

    def _on_chunk(self, message: JointTrajectory) -> None:
        self.commands.follow(message)
        started = self._observed.get(nanoseconds(message.header.stamp))
        if started is not None:
            self.computing.append((started, time.perf_counter()))

    def _ask(self) -> None:
        # While it configures itself it answers nobody, as the loading of a policy is one callback.
        if self.diagnostics.get("state") != "active":
            return
        client, request = self._calls[len(self._asked) % len(self._calls)]
        if client.service_is_ready():
            self._asked.append(time.perf_counter())
            client.call_async(request).add_done_callback(self._note(client.srv_name, self._asked[-1]))

    def _note(self, service: str, sent: float) -> Callable[[Any], None]:
        return lambda future: self.answers.append(Answer(service, sent, time.perf_counter()))
