"""What is observed and commanded, and how often: the names and units of the environment's numbers."""

from __future__ import annotations

from policy.task import Command, Part, Task
from viperx.environment import CONTROL_HZ, HIGH, JOINTS, LOW

JOINT_UNITS = ("rad",) * 6 + ("m",)

TASK = Task(
    name="viperx_pick_place",
    rate=CONTROL_HZ,
    observation=(
        Part(name="arm", names=JOINTS, units=JOINT_UNITS),
        Part(name="cube", names=("x", "y", "z", "yaw"), units=("m", "m", "m", "rad")),
        Part(name="target", names=("x", "y"), units=("m", "m")),
    ),
    action=Command(names=JOINTS, units=JOINT_UNITS, lower=LOW, upper=HIGH),
)
