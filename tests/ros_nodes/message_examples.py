"""Messages of every type, made of plain numbers: of the package rosbags, and of ROS in the nodes' tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_typestore

from policy.robot.description import Source

STAMP = {"sec": 3, "nanosec": 5}
HEADER = {"stamp": STAMP, "frame_id": "map"}
VECTORS = [{"x": 1.25, "y": -2.5, "z": 0.1}, {"x": 1e-3, "y": 7.0, "z": -0.3}]
QUATERNION = {"x": 0.1, "y": -0.2, "z": 0.3, "w": 0.927}
POSE = {"position": VECTORS[0], "orientation": QUATERNION}
TWIST = {"linear": VECTORS[0], "angular": VECTORS[1]}
LAYOUT = {"dim": [], "data_offset": 0}
POINT = {
    "positions": [0.1, 0.2],
    "velocities": [1.0, 2.0],
    "accelerations": [],
    "effort": [],
    "time_from_start": {"sec": 0, "nanosec": 100_000_000},
}

EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any], list[float]]] = {
    "sensor_msgs/JointState": (
        {"header": HEADER, "name": ["a", "b"], "position": [0.1, 0.2], "velocity": [1.0, 2.0], "effort": []},
        {"joints": ("b", "a"), "fields": ("velocity", "position")},
        [2.0, 0.2, 1.0, 0.1],
    ),
    "trajectory_msgs/JointTrajectory": (
        {"header": HEADER, "joint_names": ["a", "b"], "points": [POINT]},
        {"joints": ("b", "a")},
        [0.2, 0.1],
    ),
    "sensor_msgs/Imu": (
        {
            "header": HEADER,
            "orientation": QUATERNION,
            "orientation_covariance": [0.0] * 9,
            "angular_velocity": VECTORS[0],
            "angular_velocity_covariance": [0.0] * 9,
            "linear_acceleration": VECTORS[1],
            "linear_acceleration_covariance": [0.0] * 9,
        },
        {"fields": ("orientation.w", "angular_velocity.z", "linear_acceleration.x")},
        [0.927, 0.1, 1e-3],
    ),
    "sensor_msgs/Joy": (
        {"header": HEADER, "axes": [0.5, -0.25], "buttons": [0, 1]},
        {"fields": ("axes[1]", "buttons[1]", "axes[0]")},
        [-0.25, 1.0, 0.5],
    ),
    "nav_msgs/Odometry": (
        {
            "header": HEADER,
            "child_frame_id": "base",
            "pose": {"pose": POSE, "covariance": [0.0] * 36},
            "twist": {"twist": TWIST, "covariance": [0.0] * 36},
        },
        {"fields": ("position.y", "linear.x", "angular.z")},
        [-2.5, 1.25, -0.3],
    ),
    "geometry_msgs/PolygonStamped": (
        {"header": HEADER, "polygon": {"points": [{"x": 1.5, "y": 2.5, "z": 0.0}] * 2}},
        {"fields": ("point.y", "point.x")},
        [2.5, 1.5, 2.5, 1.5],
    ),
    "geometry_msgs/PoseStamped": (
        {"header": HEADER, "pose": POSE},
        {"fields": ("position.z", "orientation.x")},
        [0.1, 0.1],
    ),
    "geometry_msgs/Twist": (TWIST, {"fields": ("linear.x", "angular.z")}, [1.25, -0.3]),
    "geometry_msgs/TwistStamped": (
        {"header": HEADER, "twist": TWIST},
        {"fields": ("angular.x", "linear.z")},
        [1e-3, 0.1],
    ),
    "geometry_msgs/WrenchStamped": (
        {"header": HEADER, "wrench": {"force": VECTORS[0], "torque": VECTORS[1]}},
        {"fields": ("force.y", "torque.y")},
        [-2.5, 7.0],
    ),
    "std_msgs/Bool": ({"data": True}, {}, [1.0]),
    "std_msgs/Float32": ({"data": 0.1}, {}, [float(np.float32(0.1))]),
    "std_msgs/Float64": ({"data": 0.1}, {"fields": ("data",)}, [0.1]),
    "std_msgs/Float32MultiArray": (
        {"layout": LAYOUT, "data": [0.1, 2.0]},
        {},
        [float(np.float32(0.1)), 2.0],
    ),
    "std_msgs/Float64MultiArray": (
        {"layout": LAYOUT, "data": [0.1, 2.0, 3.0]},
        {"fields": ("data[2]", "data[0]")},
        [3.0, 0.1],
    ),
}
"""Of each type: the message, the joints and fields of a source, and the numbers that it gives."""


def example_source(kind: str) -> Source:
    return Source(name="part", topic="topic", type=kind, **EXAMPLES[kind][1])


@cache
def typestore() -> Any:
    return get_typestore(Stores.ROS2_JAZZY)


def rosbags_message(kind: str, values: Any) -> Any:
    """A message of the package rosbags, from its bytes."""
    package, name = kind.split("/")
    full = f"{package}/msg/{name}"
    serialized = typestore().serialize_cdr(_made(full, values), full)
    return typestore().deserialize_cdr(serialized, full)


def _made(kind: str, values: dict[str, Any]) -> Any:
    made = {}
    for name, (node, described) in typestore().fielddefs[kind][1]:
        value = values[name]
        if node == Nodetype.NAME:
            made[name] = _made(described, value)
        elif node == Nodetype.BASE:
            made[name] = value
        else:
            (inner, entry), _ = described
            if inner == Nodetype.NAME:
                made[name] = [_made(entry, one) for one in value]
            else:
                made[name] = value if entry[0] == "string" else np.array(value, dtype=entry[0])
    return typestore().types[kind](**made)
