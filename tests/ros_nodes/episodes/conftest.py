from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROBOT = Path(__file__).resolve().parents[3] / "config" / "pusht.yaml"


class Stack:
    """Simulator and policy node, each in a process of its own, and what they say."""

    def __init__(self, graph: Any, checkpoint: Path, mode: str) -> None:
        from std_msgs.msg import Float64MultiArray

        self.graph = graph
        self.checkpoint = checkpoint
        self.mode = mode
        self.simulator: Any = None
        self.policy: Any = None
        self.statuses: list[list[float]] = []
        graph.node.create_subscription(
            Float64MultiArray,
            "/pusht_simulator/episode",
            lambda message: self.statuses.append(message.data.tolist()),
            1000,
        )

    def start_simulator(self, **parameters: Any) -> None:
        self.simulator = self.graph.start("ros_nodes.simulator.simulator_node", mode=self.mode, **parameters)

    def start_policy(self, **parameters: Any) -> None:
        """Start the policy node and bring it up."""
        self.policy = self.graph.start(
            *("ros_nodes.policy_node.node", "--ros-args", "--params-file", str(ROBOT)),
            checkpoint=self.checkpoint,
            engine="plain",
            sampler__solver="auto",
            sampler__steps=4,
            synchronous=self.mode == "lockstep",
            use_sim_time=True,
            **parameters,
        )
        for label in ("configure", "activate"):
            self.change(label)

    def change(self, label: str) -> None:
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(label=label))
        assert self.graph.call(ChangeState, "/policy/change_state", request).success

    def run_episodes(self, output_dir: Path, **parameters: Any) -> dict[str, Any]:
        """Run the episode runner, which must end with 0, or with 1 if episodes failed; its summary."""
        runner = self.graph.start("ros_nodes.episodes.episode_runner", output_dir=output_dir, **parameters)
        self.graph.spin_until(lambda: runner.poll() is not None, "the episode runner ends", timeout=300)
        self.printed = self.graph.output(runner)
        assert runner.returncode in (0, 1), self.printed
        summary: dict[str, Any] = json.loads((output_dir / "summary.json").read_text())
        assert runner.returncode == bool(summary["failures"]), self.printed
        return summary

    def rewards(self, seed: int, steps: int) -> list[float]:
        """Those of an episode, once so many have been read: the runner may end before."""

        def read() -> list[float]:
            return [status[2] for status in self.statuses if status[0] == seed and status[1] > 0]

        self.graph.spin_until(lambda: len(read()) >= steps, f"{steps} steps of seed {seed}")
        return read()

    @property
    def step(self) -> int:
        """Of the running episode, −1 before the first."""
        return int(self.statuses[-1][1]) if self.statuses else -1


@pytest.fixture
def stack(graph: Any, checkpoint: Path) -> Callable[[str], Stack]:
    return lambda mode: Stack(graph, checkpoint, mode)
