"""A policy that sees: its node takes pictures of two cameras, raw and JPEG, and lives on whatever they send."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from policy_peer import STEP, PolicyPeer
from seeing_policy import save_seeing_policy
from sensor_msgs.msg import CompressedImage, Image

from policy.task_parts import ImagePart

ROBOT = """
/**:
  ros__parameters:
    observation_sources: [front, wrist, pusher]
    front: {topic: front, type: sensor_msgs/Image, reliability: reliable}  # as each is sent once
    wrist: {topic: wrist, type: sensor_msgs/CompressedImage, reliability: reliable}
    pusher: {topic: joint_states, type: sensor_msgs/JointState, joints: [pusher_x, pusher_y]}
    trajectory_topic: pusher_controller/joint_trajectory
"""
START = 10 * STEP


def pixels(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def raw(picture: NDArray[np.uint8], **changes: Any) -> Any:
    height, width, _ = picture.shape
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = picture.tobytes()
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def jpeg(picture: NDArray[np.uint8], most_bytes: int | None = None) -> Any:
    file = io.BytesIO()
    Pillow.fromarray(picture).save(file, "JPEG")
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=file.getvalue()[:most_bytes])


class Cameras:
    """What the robot's cameras send to the policy node."""

    def __init__(self, graph: Any, policy: PolicyPeer) -> None:
        self.policy = policy
        self.front = graph.publisher(Image, "/front")
        self.wrist = graph.publisher(CompressedImage, "/wrist")

    def send(self, publisher: Any, stamp_ns: int, message: Any) -> None:
        message.header.stamp = self.policy.stamp(stamp_ns)
        publisher.publish(message)

    def observe(self, stamp_ns: int, number: int, *, front: Any = None, wrist: Any = None) -> None:
        self.send(self.front, stamp_ns, front or raw(pixels(number)))
        self.send(self.wrist, stamp_ns, wrist or jpeg(pixels(number + 1)))
        self.policy.send_pusher(stamp_ns, (250.0 + number, 260.0))


def test_no_chunk_is_made_of_what_is_no_picture_and_the_node_lives_on(graph: Any, tmp_path: Path) -> None:
    robot = tmp_path / "robot.yaml"
    robot.write_text(ROBOT)
    parts = (ImagePart(name="front", height=32, width=40), ImagePart(name="wrist", height=24, width=24))
    settings = {
        "checkpoint": save_seeing_policy(tmp_path / "seeing.safetensors", *parts),
        "engine": "plain",
        "use_sim_time": True,  # without a clock it stands at 0: nothing ages
    }
    options = [text for name, value in settings.items() for text in ("-p", f"{name}:={value!s}")]
    graph.start("ros_nodes.policy_node.node", "--ros-args", "--params-file", str(robot), *options)
    policy = PolicyPeer(graph)
    assert policy.transition("configure"), graph.logs()
    assert policy.transition("activate")
    cameras = Cameras(graph, policy)
    graph.spin_until(policy.pusher.get_subscription_count, "the policy listens to the pusher")
    graph.spin_until(lambda: graph.node.count_publishers(policy.chunk_topic), "the policy advertises")

    cameras.observe(START, 0)
    stamp, points = policy.chunk(0)
    assert (stamp, points.shape) == (START, (8, 2))

    at = START
    bad_pictures = (
        ("encoding", {"front": raw(pixels(1), encoding="16UC1")}),
        ("bytes", {"front": raw(pixels(1), height=61)}),
        ("size", {"front": raw(pixels(1), width=0)}),
        ("black", {"front": raw(pixels(1) // 64)}),
        ("undecodable", {"wrist": jpeg(pixels(1), 400)}),
    )
    for _, bad in bad_pictures:
        at += 20 * STEP
        cameras.observe(at, 2, **bad)
        graph.spin_for(0.2)  # or frames would give way to newer ones
    for repeat in range(1, 8):  # the same picture for 0.7 s
        cameras.send(cameras.front, at + repeat * STEP, raw(pixels(3)))
        graph.spin_for(0.05)
    huge = Image(height=1, width=1, encoding="rgb8", step=3)
    huge.data = bytes(70_000_000)
    cameras.send(cameras.front, at, huge)
    policy.wait_for_value("rejected_observations.front.size", 2)
    for reason, bad in (*bad_pictures, ("frozen", {"front": None})):
        policy.wait_for_value(f"rejected_observations.{next(iter(bad))}.{reason}", 1)
    assert len(policy.chunks) == 1
    assert policy.state() == "active"

    cameras.observe(at + 40 * STEP, 4)
    assert policy.chunk(1)[0] == at + 40 * STEP
    policy.wait_for_value("chunks", 2)
    assert float(policy.values()["encoding_p50_ms"]) > 0
