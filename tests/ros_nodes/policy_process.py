"""A policy node that pytest's tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policy_peer import PolicyPeer
from process_status import memory, threads
from ros_processes import ProcessGraph

ROBOT = Path(__file__).resolve().parents[2] / "config" / "pusht.yaml"


class PolicyProcess(PolicyPeer):
    """A policy node in a process of its own, with what a robot sends it and hears from it.

    Args:
        parameters: of the node, beside PushT as a robot. Simulated time without a clock stands at 0: nothing ages.
    """

    def __init__(
        self,
        graph: ProcessGraph,
        checkpoint: Path,
        *,
        namespace: str = "",
        program: tuple[str, ...] = (),
        **parameters: Any,
    ) -> None:
        options = {
            "checkpoint": checkpoint,
            "engine": "eager",
            "sampler__solver": "auto",
            "sampler__steps": 4,
            "use_sim_time": True,
            **parameters,
        }
        remap = ("--ros-args", "-r", f"__ns:=/{namespace}") if namespace else ()
        arguments = [*remap, "--ros-args", "--params-file", str(ROBOT)]
        for name, value in options.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{name.replace('__', '.')}:={text}"]
        command = (*program, *arguments) if program else ("ros_nodes.policy_node.node", *arguments)
        self.process = graph.start(*command)
        super().__init__(graph, namespace, options.get("output", "topic") == "topic")

    def memory(self) -> int:
        """Resident memory of the process in bytes."""
        return memory(self.process.pid)

    def threads(self) -> int:
        return threads(self.process.pid)
