"""ROS tests use the real thing: processes that talk over DDS, each test in a domain of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import rclpy
except ImportError as error:
    MISSING = f"needs ROS 2, sourced and for this Python, see docs/ros.md ({error})"
else:
    MISSING = ""

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds that a test waits for what it waits for, on a machine however slow."""


class RosModule(pytest.Module):
    """A test module that is skipped where ROS is not there and it imports it, or has tests with processes."""

    def collect(self) -> list[Any]:
        try:
            items = list(super().collect())
        except self.CollectError as error:
            if not MISSING or not isinstance(error.__cause__, ImportError):
                raise
            items = []
        if MISSING and (not items or any("ros" in getattr(item, "fixturenames", ()) for item in items)):
            # Skipped in this one place, all modules make one line in pytest's report.
            pytest.skip(MISSING, allow_module_level=True)
        return items


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return RosModule.from_parent(parent, path=module_path)


class RosGraph:
    """A ROS graph of its own: processes, and a node in this one to listen and call.

    Args:
        log_dir: where the processes' output goes.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self.domain = _free_domain()
        # Nobody else on the network shall hear, neither this process nor the others.
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.env = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain),
            "ROS_LOG_DIR": str(log_dir),
            "PYTHONUNBUFFERED": "1",
            # Launch files start what is installed in the environment that runs the tests.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            # Each process on its own core or part of one: threads that wait for each other only spin.
            "OMP_NUM_THREADS": "1",
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def start(self, *command: str, **parameters: Any) -> subprocess.Popen[bytes]:
        """Start a process.

        Args:
            command: a module of `ros_nodes` and its arguments, or any other executable with its arguments.
            parameters: of the node, for a module.
        """
        if command[0].startswith("ros_nodes."):
            command = (sys.executable, "-m", *command, "--ros-args")
            for name, value in parameters.items():
                text = str(value).lower() if isinstance(value, bool) else str(value)
                command = (*command, "-p", f"{name.replace('__', '.')}:={text}")
        with open(self.log_dir / f"{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen(
                command, env=self.env, cwd=self.log_dir, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def output(self, process: subprocess.Popen[bytes]) -> str:
        return (self.log_dir / f"{self.processes.index(process)}.log").read_text(errors="replace")

    def run(self, *command: str, timeout: float = PATIENCE) -> str:
        """Run a process to its end, whose status must be 0, while this one's node goes on; returns its output."""
        process = self.start(*command)
        self.spin_until(lambda: process.poll() is not None, f"{' '.join(command)} ends", timeout)
        assert process.returncode == 0, f"{command} ended with {process.returncode}\n{self.output(process)}"
        return self.output(process)

    def stop(self, process: subprocess.Popen[bytes], sent: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        process.send_signal(sent)
        return process.wait(PATIENCE)

    def stop_launch(self, launch: subprocess.Popen[bytes]) -> int:
        """Press Ctrl-C, and again if nothing happens, as a person would; returns the exit status.

        `ros2 launch` was once seen to go on after a signal that came just as the node turned active.
        """
        for _ in range(4):
            launch.send_signal(signal.SIGINT)
            try:
                return launch.wait(PATIENCE / 4)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError(f"the launch goes on\n{self.output(launch)}")

    def spin_until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
        """Serve this process's node until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {p.args}\n{self.output(p)[-2000:]}" for p in self.processes)
                pytest.fail(f"waited {timeout:g} s for: {what}\n{logs}")
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
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request()
        request.parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        for result in self.call(SetParameters, f"/{node}/set_parameters", request).results:
            assert result.successful, result.reason

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture(scope="session")
def ros() -> None:
    """What the modules are known by whose tests need ROS."""


@pytest.fixture
def graph(ros: None, tmp_path: Path) -> Iterator[RosGraph]:
    graph = RosGraph(tmp_path)
    yield graph
    graph.close()


def _free_domain() -> int:
    """A domain without participants; up to 101 its ports are free on every system."""
    while True:
        domain = random.randint(1, 101)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # DDS's port of the domain's first participant.
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
            return domain
