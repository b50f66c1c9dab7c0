"""The test's own part of a ROS graph: a node to listen and call with, in a domain of its own."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

PATIENCE = 60.0
"""Seconds that a test waits for what it waits for, on a machine however slow."""

# Nobody else on the network shall hear a test, neither this process nor those that it starts.
LOCAL = (
    {"ROS_LOCALHOST_ONLY": "1"}
    if os.environ.get("ROS_DISTRO") == "humble"
    else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
)


def free_domain() -> int:
    """A domain without participants; up to 101 its ports are free on every system.

    Workers of pytest-xdist choose from domains of their own: a domain that another one has just chosen seems free.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        domain = random.choice(range(1 + worker, 102, workers))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # DDS's port of the domain's first participant.
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
            return domain


class RosGraph:
    """A node in this process, to listen and call with.

    Args:
        domain: of the graph; that of the environment if None.
    """

    def __init__(self, domain: int | None = None) -> None:
        os.environ.update(LOCAL)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def logs(self) -> str:
        """What there is to know when a test has waited in vain."""
        return ""

    def spin_until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
        """Serve this process's node until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s for: {what}\n{self.logs()}")
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)

    def listen(self, message_type: Any, topic: str, depth: int = 1000) -> list[Any]:
        """A list that grows with the messages of a topic; waits until there is somebody to hear."""
        heard: list[Any] = []
        self.node.create_subscription(message_type, topic, heard.append, depth)
        self.spin_until(lambda: self.node.count_publishers(topic), f"somebody publishes {topic}")
        return heard

    def publisher(self, message_type: Any, topic: str) -> Any:
        """A publisher to which somebody listens."""
        publisher = self.node.create_publisher(message_type, topic, 10)
        self.spin_until(publisher.get_subscription_count, f"somebody listens to {topic}")
        return publisher

    def call(self, service_type: Any, name: str, request: Any = None) -> Any:
        """Call a service and return its response."""
        client = self.node.create_client(service_type, name)
        self.spin_until(client.service_is_ready, f"service {name}")
        future = client.call_async(request or service_type.Request())
        self.spin_until(future.done, f"response of {name}")
        self.node.destroy_client(client)
        return future.result()

    def set_parameters(self, node: str, **values: Any) -> None:
        """Set parameters of a node, with `__` for a dot in their names; it must accept them."""
        request = SetParameters.Request()
        request.parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        for result in self.call(SetParameters, f"/{node}/set_parameters", request).results:
            assert result.successful, result.reason

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)
