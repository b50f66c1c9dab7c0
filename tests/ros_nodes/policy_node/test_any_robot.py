"""A robot that is not PushT: the arm of the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_peer import STEP
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float32, String
from trajectory_msgs.msg import JointTrajectory

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range, SamplerConfig
from policy.task import Command, Part, Task

TEMPLATE = Path(__file__).resolve().parents[3] / "config" / "policy.yaml"
JOINTS = ("shoulder", "elbow", "wrist")
SHUT = 0.25
"""The gripper of the demonstrations, which never opened."""


def save_policy(path: Path) -> None:
    """An untrained policy of the template's arm, whose task knows no limits. It observes the gripper first."""
    torch.manual_seed(0)
    task = Task(
        name="reach",
        rate=20.0,
        observation=(
            Part(name="gripper", names=("opening",), units=("m",)),
            Part(name="arm", names=JOINTS, units=("rad",) * 3),
        ),
        action=Command(names=JOINTS, units=("rad",) * 3, lower=(None,) * 3, upper=(None,) * 3),
    )
    config = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)
    normalizer = Normalizer(
        Range(torch.tensor([SHUT, -1.0, -1.0, -1.0]), torch.tensor([SHUT, 1.0, 1.0, 1.0])),
        Range(torch.full((3,), -1.0), torch.full((3,), 1.0)),
    )
    DiffusionPolicy(config.build_network(task).eval(), task, config, normalizer).save(path)


SPEED = 2.0
"""The elbow's largest, in rad/s."""
URDF = """<robot name="arm">
  <joint name="shoulder" type="revolute"><limit lower="-0.5" upper="0.5" velocity="1000"/></joint>
  <joint name="elbow" type="revolute"><limit lower="-1" upper="1" velocity="2"/></joint>
  <joint name="wrist" type="revolute"><limit lower="-1" upper="1" velocity="1000"/></joint>
</robot>"""


def test_an_arm_is_commanded_by_its_task_within_the_limits_of_its_urdf(graph: Any, tmp_path: Path) -> None:
    checkpoint = tmp_path / "arm.safetensors"
    save_policy(checkpoint)
    node = graph.start(
        *("ros_nodes.policy_node.node", "--ros-args", "--params-file", str(TEMPLATE)),
        checkpoint=checkpoint,
        engine="eager",
        sampler__steps=4,
        use_sim_time=True,
        synchronous=True,
    )

    def change(label: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=label))
        return bool(graph.call(ChangeState, "/policy/change_state", request).success)

    assert not change("configure")
    reason = "joint 'shoulder' has no lower limit: the task knows none, so lower_limits must name it"
    assert reason in graph.output(node)
    description = graph.node.create_publisher(
        String, "/robot_description", QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    )
    graph.set_parameters("policy", robot_description="/robot_description")
    controller = rclpy.create_node("joint_trajectory_controller", context=graph.context)
    graph.executor.add_node(controller)
    controller.declare_parameter("command_interfaces", ["velocity"])

    def refused(reason: str) -> None:
        graph.spin_until(
            lambda: not change("configure") and reason in graph.output(node).splitlines()[-1], reason
        )

    description.publish(String(data=URDF.replace("elbow", "knee")))
    refused("cannot configure: the URDF has no joint 'elbow', only shoulder, knee, wrist")
    description.publish(String(data=URDF))
    refused(
        "the controller joint_trajectory_controller commands velocity: its command_interfaces must have position"
    )
    controller.set_parameters([Parameter("command_interfaces", value=["position", "velocity"])])
    refused("trajectory.over_limit must be clip with synchronous")
    graph.set_parameters("policy", trajectory__over_limit="clip")
    assert change("configure"), graph.output(node)
    assert change("activate")
    chunks: list[Any] = []
    graph.node.create_subscription(
        JointTrajectory, "/joint_trajectory_controller/joint_trajectory", chunks.append, 10
    )
    arm, gripper = (
        graph.publisher(*of) for of in ((JointState, "/joint_states"), (Float32, "/gripper/opening"))
    )
    # What never varied in training is nothing to the policy: another opening is no reason to refuse it.
    gripper.publish(Float32(data=0.75))
    stamp = Time(sec=0, nanosec=STEP)
    state = JointState(name=["wrist", "finger", "elbow", "shoulder"], position=[0.3, 9.0, 0.2, 0.1])
    state.header.stamp = stamp
    graph.spin_until(lambda: (gripper.publish(Float32(data=0.75)), arm.publish(state), chunks)[-1], "a chunk")
    (chunk, *_) = chunks
    assert chunk.joint_names == list(JOINTS)
    due = [point.time_from_start.nanosec for point in chunk.points]
    assert due == [50_000_000 * number for number in range(1, 9)]
    policy = DiffusionPolicy.load(checkpoint, sampler=SamplerConfig(steps=4))
    observations = torch.tensor([[[SHUT, 0.1, 0.2, 0.3]] * 2])
    expected = policy.predict_chunk(observations, generator=torch.Generator().manual_seed(0))[0].numpy()
    assert (np.abs(expected[:, 0]) > 0.5).any(), "the limits clamp nothing"
    expected[:, 0] = expected[:, 0].clip(-0.5, 0.5)
    commanded = np.array([list(point.positions) for point in chunk.points])
    np.testing.assert_allclose(commanded[:, ::2], expected[:, ::2], atol=1e-4)
    most = SPEED / 20
    assert (np.abs(np.diff(expected[:, 1], prepend=0.2)) > most).any(), "the elbow is never too fast"
    assert np.abs(np.diff(commanded[:, 1], prepend=0.2)).max() <= most + 1e-9
