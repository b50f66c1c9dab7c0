from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range

STEP = 100_000_000
"""A control period in ns."""

FAULTY_POLICY = """
import sys
from pathlib import Path

from policy import DiffusionPolicy
from ros_nodes.policy_node import main

faults = Path(sys.argv[1])
predict = DiffusionPolicy.predict


def predict_or_fail(policy, observations, **options):
    if (faults / "raise").exists():
        raise RuntimeError("out of patience")
    while (faults / "hold").exists():  # computing, as a slow policy would
        predict(policy, observations)
    prediction = predict(policy, observations, **options)
    if (faults / "nan").exists():
        prediction.chunk.fill_(float("nan"))
    return prediction


DiffusionPolicy.predict = predict_or_fail
sys.exit(main())
"""

SHAPES = {"tiny": (8, 16), "medium": (64, 128, 256)}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Untrained policies with PushT's shapes and px ranges, by size."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def path(size: str) -> Path:
        file = folder / f"{size}.safetensors"
        if not file.exists():
            torch.manual_seed(0)
            config = PolicyConfig(down_dims=SHAPES[size], step_embed_dim=8, n_groups=4)
            normalizer = Normalizer(
                Range(torch.full((20,), 10.0), torch.full((20,), 500.0)),
                Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
            )
            DiffusionPolicy(config.build_network().eval(), config, normalizer, {"seed": 0}).save(file)
        return file

    return path


def observation(number: float) -> np.ndarray:
    """An observation (20,) inside the policy's range, another one for each number."""
    return 100.0 + 10 * np.arange(20) + number


class PolicyProcess:
    """A policy node in a process of its own, with what a robot sends it and hears from it.

    Args:
        parameters: of the node. Simulated time without a clock stands at 0, where nothing ages.
    """

    def __init__(
        self,
        graph: Any,
        checkpoint: Path,
        namespace: str = "",
        program: tuple[str, ...] = (),
        **parameters: Any,
    ) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import PolygonStamped
        from sensor_msgs.msg import JointState
        from trajectory_msgs.msg import JointTrajectory

        options = {"checkpoint": checkpoint, "sampler__steps": 4, "use_sim_time": True, **parameters}
        remap = ("--ros-args", "-r", f"__ns:=/{namespace}") if namespace else ()
        arguments = [*remap, "--ros-args"]
        for name, value in options.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{name.replace('__', '.')}:={text}"]
        command = (*program, *arguments) if program else ("ros_nodes.policy_node", *arguments)
        self.graph = graph
        self.by_topic = options.get("output", "topic") == "topic"
        self.prefix = f"/{namespace}" if namespace else ""
        self.name = f"{self.prefix}/policy"
        self.process = graph.start(*command)
        self.keypoints = graph.node.create_publisher(PolygonStamped, f"{self.prefix}/block/keypoints", 10)
        self.pusher = graph.node.create_publisher(JointState, f"{self.prefix}/joint_states", 10)
        self.diagnostics: list[Any] = []
        graph.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.chunks: list[Any] = []
        graph.node.create_subscription(
            JointTrajectory, f"{self.prefix}/pusher_controller/joint_trajectory", self.chunks.append, 100
        )

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnostics += [status for status in message.status if status.name == self.name]

    def transition(self, label: str) -> bool:
        """Ask for a transition; whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(label=label))
        return bool(self.graph.call(ChangeState, f"{self.name}/change_state", request).success)

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState

        return str(self.graph.call(GetState, f"{self.name}/get_state").current_state.label)

    def parameters(self, *names: str) -> dict[str, Any]:
        from rcl_interfaces.srv import GetParameters
        from rclpy.parameter import parameter_value_to_python

        request = GetParameters.Request(names=names)
        values = self.graph.call(GetParameters, f"{self.name}/get_parameters", request).values
        return {name: parameter_value_to_python(value) for name, value in zip(names, values, strict=True)}

    def activate(self) -> PolicyProcess:
        """Configure, activate, and wait until both sides know each other."""
        assert self.transition("configure"), self.graph.output(self.process)
        assert self.transition("activate")
        for publisher in (self.keypoints, self.pusher):
            self.graph.spin_until(publisher.get_subscription_count, f"{self.name} listens")
        if self.by_topic:
            topic = f"{self.prefix}/pusher_controller/joint_trajectory"
            self.graph.spin_until(lambda: self.graph.node.count_publishers(topic), f"{self.name} advertises")
        return self

    def stamp(self, stamp_ns: int) -> Any:
        from builtin_interfaces.msg import Time

        return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def now(self) -> int:
        return int(self.graph.node.get_clock().now().nanoseconds)

    def send_keypoints(self, stamp_ns: int, values: Any, frame_id: str = "") -> None:
        from geometry_msgs.msg import Point32, PolygonStamped

        message = PolygonStamped()
        message.header.stamp, message.header.frame_id = self.stamp(stamp_ns), frame_id
        pairs = np.reshape(np.asarray(values, float), (-1, 2)).tolist()
        message.polygon.points = [Point32(x=x, y=y) for x, y in pairs]
        self.keypoints.publish(message)

    def send_pusher(
        self, stamp_ns: int, values: Any, names: tuple[str, ...] = ("pusher_x", "pusher_y")
    ) -> None:
        from sensor_msgs.msg import JointState

        message = JointState(name=list(names), position=list(map(float, values)))
        message.header.stamp = self.stamp(stamp_ns)
        self.pusher.publish(message)

    def observe(self, stamp_ns: int, values: Any) -> None:
        """Send an observation (20,)."""
        self.send_keypoints(stamp_ns, values[:18])
        self.send_pusher(stamp_ns, values[18:])

    def chunk(self, number: int) -> tuple[int, np.ndarray]:
        """Wait for a chunk; its stamp in ns and its positions (8, 2)."""
        self.graph.spin_until(lambda: len(self.chunks) > number, f"chunk {number}")
        message = self.chunks[number]
        stamp = message.header.stamp
        return stamp.sec * 10**9 + stamp.nanosec, np.array(
            [list(point.positions) for point in message.points]
        )

    def values(self) -> dict[str, str]:
        """The newest diagnostics by name."""
        return {pair.key: pair.value for pair in self.diagnostics[-1].values} if self.diagnostics else {}

    def wait_for_value(self, key: str, minimum: int) -> None:
        """Wait until a count in the diagnostics is large enough."""
        self.graph.spin_until(lambda: int(self.values().get(key, 0)) >= minimum, f"{key} ≥ {minimum}")

    def wait_for_message(self, part: str) -> None:
        """Wait for a diagnostic whose message holds a text."""
        heard = len(self.diagnostics)
        self.graph.spin_until(
            lambda: any(part in status.message for status in self.diagnostics[heard:]), f"diagnostic {part!r}"
        )

    def memory(self) -> int:
        """Resident memory of the process in bytes."""
        return self._status("VmRSS") * 1024

    def threads(self) -> int:
        return self._status("Threads")

    def _status(self, key: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


@pytest.fixture
def start_policy(graph: Any, checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., PolicyProcess]]:
    """Start a policy node; keywords as for `PolicyProcess`, and `size` of the policy."""

    def start(size: str = "tiny", **options: Any) -> PolicyProcess:
        return PolicyProcess(graph, options.pop("checkpoint", checkpoint(size)), **options)

    yield start
    # Killed ones would keep this process's writers waiting for what they never acknowledge.
    for process in graph.processes:
        if process.poll() is None:
            graph.stop(process, signal.SIGTERM)


@pytest.fixture
def start_faulty_policy(
    start_policy: Callable[..., PolicyProcess], tmp_path: Path
) -> Callable[..., PolicyProcess]:
    """Start a policy node whose policy raises, holds its answer back or answers NaN while a file of that name
    (`raise`, `hold`, `nan`) is in `tmp_path`."""
    program = tmp_path / "faulty_policy.py"
    program.write_text(FAULTY_POLICY)
    return partial(start_policy, program=(sys.executable, str(program), str(tmp_path)))


@pytest.fixture
def expected_chunk(checkpoint: Callable[[str], Path]) -> Callable[..., np.ndarray]:
    """The chunks (8, 2) that the tiny policy computes without ROS."""

    def chunk(*histories: tuple[float, float], seed: int = 0, steps: int = 4) -> np.ndarray:
        """The last chunk of a sequence of observation pairs."""
        from policy import SamplerConfig

        policy = DiffusionPolicy.load(checkpoint("tiny"), sampler=SamplerConfig(steps=steps))
        generator = torch.Generator().manual_seed(seed)
        for pair in histories:
            observations = torch.from_numpy(np.stack([observation(number) for number in pair])).float()
            result = policy.predict_chunk(observations[None], generator=generator)[0]
        return result.double().numpy()

    return chunk
