from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from control_msgs.msg import JointTrajectoryControllerState
from policy_peer import PolicyPeer, observation
from ros_graph import RosGraph

from policy import DiffusionPolicy, Range

LAUNCH_FOLDER = Path(__file__).resolve().parents[3] / "launch"
CONTROLLERS_FILE = LAUNCH_FOLDER / "ros2_control.launch.py"
ACTIONS = (250.0, 262.0)
"""Range in px of the policy's actions, next to where the mock hardware starts."""
OUTPUTS = ("topic", "follow_joint_trajectory")


def calm_policy(checkpoint: str, folder: str) -> str:
    """The file of a policy like another one, whose actions stay within a few px."""
    policy = DiffusionPolicy.load(checkpoint)
    low, high = (torch.full((2,), value) for value in ACTIONS)
    normalizer = replace(policy.normalizer, action=Range(low, high))
    file = Path(folder) / "calm.safetensors"
    replace(policy, normalizer=normalizer).save(file)
    return str(file)


class ControllerTestCase(unittest.TestCase):
    """Tests of a policy node that moves ros2_control's own controllers, which measure the pusher."""

    graph: ClassVar[RosGraph]
    controllers: ClassVar[subprocess.Popen[bytes]]
    log: ClassVar[Path]
    policy: ClassVar[PolicyPeer]
    states: ClassVar[list[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.graph = RosGraph()
        cls.policy = PolicyPeer(cls.graph)
        cls.states = []
        cls.graph.node.create_subscription(
            JointTrajectoryControllerState, "/pusher_controller/controller_state", cls.states.append, 100
        )
        cls.log = Path(tempfile.mkdtemp()) / "controllers.txt"
        cls.start_controllers()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kill_controllers()
        cls.graph.close()
        shutil.rmtree(cls.log.parent)

    @classmethod
    def start_controllers(cls) -> None:
        """ros2_control with the pusher's controllers, all of whose processes are one group."""
        with open(cls.log, "ab") as output:
            cls.controllers = subprocess.Popen(
                ["ros2", "launch", str(CONTROLLERS_FILE)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @classmethod
    def kill_controllers(cls) -> None:
        os.killpg(cls.controllers.pid, signal.SIGKILL)
        cls.controllers.wait()

    def controllers_said(self) -> str:
        return self.log.read_text(errors="replace")

    def start(self, test_args: dict[str, str], output: str, **parameters: Any) -> None:
        """Configure and activate the policy node, until the test ends."""
        self.addCleanup(self.end)
        self.bring_up(test_args, output=output, engine="eager", **parameters)

    def bring_up(self, test_args: dict[str, str], **parameters: Any) -> None:
        """Configure and activate the policy node with a calm policy."""
        checkpoint = calm_policy(test_args["checkpoint"], test_args["folder"])
        self.graph.set_parameters(self.policy.name.strip("/"), checkpoint=checkpoint, **parameters)
        assert self.policy.transition("configure")
        assert self.policy.transition("activate")
        self.graph.spin_until(self.policy.keypoints.get_subscription_count, "the policy listens")

    def end(self) -> None:
        if self.policy.state() == "active":
            assert self.policy.transition("deactivate")
        if self.policy.state() == "inactive":
            assert self.policy.transition("cleanup")

    def see(self, done: Any, what: str) -> None:
        """Send keypoints as the camera that sees the block, one observation a control period, until something holds."""
        sent = 0.0

        def go_on() -> bool:
            nonlocal sent
            if time.monotonic() - sent >= 0.1:
                sent = time.monotonic()
                self.policy.send_keypoints(self.policy.now(), observation(0)[:18])
            return bool(done())

        self.graph.spin_until(go_on, what)

    def see_chunks(self, count: int) -> None:
        """Until the policy has sent so many more chunks."""
        before = self.chunks()
        self.see(lambda: self.chunks() >= before + count, f"{count} chunks")

    def chunks(self) -> int:
        return int(self.policy.values().get("chunks", 0))

    def positions(self, since: int) -> tuple[Any, Any]:
        """Times and commanded positions since a number of states."""
        states = self.states[since:]
        times = np.array([state.header.stamp.sec + state.header.stamp.nanosec / 1e9 for state in states])
        times, first = np.unique(times, return_index=True)
        return times, np.array([list(states[index].output.positions) for index in first])

    def assert_stands_still_soon(self) -> None:
        """A stop takes a control period, and a message its way."""
        self.graph.spin_for(0.3)
        before = len(self.states)
        self.graph.spin_until(lambda: len(self.states) > before + 30, "the controller goes on")
        _, positions = self.positions(before)
        assert np.ptp(positions, axis=0).max() < 0.01
