"""Messages into the callbacks of real nodes: of every type that they subscribe to, and goals of their action.

Imports rclpy, and so needs ROS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTrajectoryControllerState
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PolygonStamped, PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from policy.task import Part, Task
from policy.task_parts import ImagePart
from ros_nodes.episodes.episode_log import EpisodeLog
from ros_nodes.episodes.episode_runner import EpisodeRunner
from ros_nodes.policy_node.node import PolicyNode
from ros_nodes.simulator.pusht_sensors import PushTSensors
from ros_nodes.simulator.pusht_world import PushTWorld
from ros_nodes.simulator.simulator import Simulator
from tests.fuzz.case import Family, Fault, Inject, Mishandled, Outcome
from tests.fuzz.damage import damaged_bytes
from tests.fuzz.families.checkpoints import PUSHT, tiny_policy
from tests.fuzz.good_messages import (
    GOOD_SECOND,
    compressed_image,
    controller_state,
    good_message,
    image,
    joint_state,
    polygon,
    pose,
    trajectory,
)
from tests.fuzz.message_faults import damage_message

ROBOT = Path(__file__).resolve().parents[3] / "config" / "pusht.yaml"
SECOND = 10**9
OTHER = "other"  # the second policy node, of a task with other types of messages
OTHER_TASK = Task(
    name=OTHER,
    rate=PUSHT.rate,
    observation=(
        Part(name="pose", names=("x", "y", "yaw"), units=("m", "m", "rad")),
        Part(name="numbers", names=tuple(f"number{index}" for index in range(17)), units=("",) * 17),
        ImagePart(name="front", height=16, width=16),
        ImagePart(name="wrist", height=24, width=16),
    ),
    action=PUSHT.action,
)
PARAMETERS = {
    "policy": {"engine": "plain", "sampler.steps": 1, "use_sim_time": True},
    OTHER: {
        "engine": "plain",
        "sampler.steps": 1,
        "use_sim_time": True,
        "observation_sources": "[pose, numbers, front, wrist]",
        "pose.topic": "pose",
        "pose.type": "geometry_msgs/PoseStamped",
        "pose.fields": "[position.x, position.y, yaw]",
        "pose.frame_id": "world",
        "numbers.topic": "numbers",
        "numbers.type": "std_msgs/Float64MultiArray",
        "front.topic": "front",
        "front.type": "sensor_msgs/Image",
        "front.same_pictures": "allow",
        "wrist.topic": "wrist",
        "wrist.type": "sensor_msgs/CompressedImage",
        "wrist.same_pictures": "allow",
        "trajectory_topic": "other/joint_trajectory",
    },
    "pusht_simulator": {"mode": "lockstep"},
}


def prepare(folder: Path) -> Inject:
    # Nobody outside of this process shall hear of any of this.
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    tiny_policy().save(folder / "policy.safetensors")
    tiny_policy(OTHER_TASK).save(folder / f"{OTHER}.safetensors")
    arguments = [
        "--ros-args",
        "--log-level",
        "fatal",
        "--params-file",
        str(ROBOT),
        "-p",
        f"checkpoint:={folder / 'policy.safetensors'}",
        "-p",
        f"{OTHER}:checkpoint:={folder / OTHER}.safetensors",
    ]
    for node, values in PARAMETERS.items():
        for name, value in values.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{node}:{name}:={text}"]
    rclpy.init(args=arguments)
    bench = _Bench()
    bench.check_alive()  # the first of all takes longer
    makers: dict[type, Callable[[np.random.Generator], Any]] = {
        Clock: lambda rng: Clock(clock=Time(sec=GOOD_SECOND)),
        JointState: joint_state,
        PolygonStamped: polygon,
        PoseStamped: pose,
        Image: image,
        CompressedImage: compressed_image,
        Float64MultiArray: lambda rng: Float64MultiArray(
            data=rng.uniform(0, 400, rng.choice([7, 17])).tolist()
        ),
        JointTrajectory: trajectory,
        JointTrajectoryControllerState: controller_state,
        DiagnosticArray: lambda rng: DiagnosticArray(
            status=[DiagnosticStatus(name="/policy", values=[KeyValue(key="state", value="active")])]
        ),
    }

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        if rng.random() < 0.1:
            goal = FollowJointTrajectory.Goal(trajectory=trajectory(rng))
            text = damage_message(rng, goal)
            return Fault(f"goal, {text}", lambda: bench.send_goal(goal))
        node, subscription = bench.subscriptions[rng.integers(len(bench.subscriptions))]
        message = makers[subscription.msg_type](rng)
        text = f"{node.get_name()} {subscription.topic_name}, {damage_message(rng, message)}"
        if not subscription.raw:
            return Fault(text, lambda: bench.send(node, lambda: subscription.callback(message)))
        content = serialize_message(message)
        if rng.random() < 0.3:
            content, damage = damaged_bytes(rng, content)
            text = f"{text}, serialised: {damage}"
        return Fault(text, lambda: bench.send(node, lambda: subscription.callback(content)))

    return inject


class _Bench:
    """The nodes, active, in this process."""

    def __init__(self) -> None:
        self.policies = [PolicyNode(), PolicyNode(OTHER)]
        self.simulator = Simulator(
            "pusht_simulator",
            controller="pusher_controller",
            build=lambda node: (PushTWorld(), PushTSensors(node)),
        )
        self.runner = EpisodeRunner()
        self.executor = SingleThreadedExecutor()
        self.nodes: list[Node] = [*self.policies, self.simulator, self.runner]
        for policy in self.policies:
            policy.trigger_configure()
            if policy._failure:
                raise RuntimeError(f"{policy.get_name()} does not configure: {policy._failure}")
            policy.trigger_activate()
        for node in self.nodes:
            self.executor.add_node(node)
        self.subscriptions = [
            (node, each)
            for node in self.nodes
            for each in node.subscriptions
            if each.raw or each.msg_type is Clock
        ]

    def send(self, node: Node, deliver: Callable[[], object]) -> Outcome:
        """Deliver a message, and see that the nodes live on and have not believed what is impossible."""
        self.runner._log = EpisodeLog(0, 5.0, 0.0, period=0.1)
        before = self._refused()
        try:
            deliver()
        except ValueError as error:
            # The runner's episode fails, as it should.
            if node is not self.runner or "heard of step" not in str(error):
                raise
            return "refused"
        for policy in self.policies:
            self._encode(policy)
        self._spin()
        refused = self._refused() > before
        self.check_alive()
        return "refused" if refused else "accepted"

    def _encode(self, policy: PolicyNode) -> None:
        """Let a node encode the pictures that it has got, and take in what they became."""
        frames = policy._loop._input._frames if policy._loop else None
        if frames is not None:
            frames._pool.submit(lambda: None).result()
            policy._loop._input._on_encoded()

    def send_goal(self, goal: Any) -> Outcome:
        before = self._refused()
        self.simulator._controller._on_goal(goal)
        refused = self._refused() > before
        self.check_alive()
        return "refused" if refused else "accepted"

    def check_alive(self) -> None:
        """Good messages are still taken, and what the nodes hold is finite."""
        for policy in self.policies:
            for each in policy.subscriptions:
                if each.msg_type is Clock:
                    each.callback(Clock(clock=Time(sec=GOOD_SECOND)))
            policy._on_reset(Trigger.Request(), Trigger.Response())
            for each in policy.subscriptions:
                if each.msg_type not in (Clock, JointTrajectoryControllerState):
                    each.callback(serialize_message(good_message(each.msg_type)))
            if policy._state != "active" or policy._loop is None:
                raise Mishandled(f"the policy node is {policy._state}: {policy._failure}")
            self._encode(policy)
            newest = policy._loop.history.newest_stamp()
            if newest != GOOD_SECOND * SECOND:
                raise Mishandled(f"{policy.get_name()} does not take good messages any more: {newest}")
            if policy._loop.statistics.non_finite_chunks:
                policy._loop.statistics.non_finite_chunks = 0
                raise Mishandled("computed a chunk that is not finite")
        response = self.simulator._on_reset(Trigger.Request(), Trigger.Response())
        position = self.simulator._robot.state.position
        if not response.success or not np.isfinite(position).all():
            raise Mishandled(f"the simulator is at {position}: {response.message}")
        self._spin()

    def _spin(self) -> None:
        for _ in range(3):
            self.executor.spin_once(timeout_sec=0)
        position = self.simulator._robot.state.position
        if not np.isfinite(position).all() or np.abs(position).max() > 1e4:
            raise Mishandled(f"the simulated pusher is at {position}")

    def _refused(self) -> int:
        """All that all nodes have refused so far."""
        clocks = (node.clock_refusals.counts.total() for node in (*self.policies, self.simulator))
        rejected = (policy._loop.statistics.rejections.total() for policy in self.policies if policy._loop)
        others = (
            self.simulator._controller.refusals.counts.total(),
            self.runner._refusals.counts.total(),
        )
        return sum((*clocks, *rejected, *others))


MESSAGES = Family("messages", 0.1, prepare, most_seconds=0.5)
