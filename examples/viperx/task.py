"""What is observed and commanded, and how often: the names and units of the environment's numbers."""

from __future__ import annotations

from policy.task import Command, Part, Task
from viperx.environment import CONTROL_HZ, HIGH, LOW
from viperx.scene import ARM_JOINTS

UNITS = ("rad",) * len(ARM_JOINTS)

TASK = Task(
    name="viperx_press_buttons",
    rate=CONTROL_HZ,
    observation=(
        Part(name="arm", names=ARM_JOINTS, units=UNITS),
        Part(name="first", names=("x", "y"), units=("m", "m")),
        Part(name="second", names=("x", "y"), units=("m", "m")),
        Part(name="lit", names=("first",), units=("",)),
    ),
    action=Command(names=ARM_JOINTS, units=UNITS, lower=LOW, upper=HIGH),
)
