"""Messages of every simulator: where the joints are, and how the episode goes."""

from __future__ import annotations

from collections.abc import Sequence

from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension, MultiArrayLayout

from policy.robot.times import SECOND
from ros_nodes.simulator.simulated_robot import RobotState

FRAME = "world"

EPISODE_FIELDS = ("seed", "step", "reward", "success", "terminated", "truncated", "trajectories")
"""What `~/episode` holds, in this order."""


def stamp(nanoseconds: int) -> Time:
    seconds, rest = divmod(nanoseconds, SECOND)
    return Time(sec=seconds, nanosec=rest)


def header(state: RobotState) -> Header:
    return Header(stamp=stamp(state.time), frame_id=FRAME)


def joint_state(state: RobotState, names: Sequence[str]) -> JointState:
    return JointState(
        header=header(state), name=list(names), position=list(state.position), velocity=list(state.velocity)
    )


def episode_status(state: RobotState, trajectories: int) -> Float64MultiArray:
    values = (
        state.seed,
        state.step,
        state.reward,
        state.success,
        state.terminated,
        state.truncated,
        trajectories,
    )
    dimension = MultiArrayDimension(label=" ".join(EPISODE_FIELDS), size=len(values), stride=len(values))
    return Float64MultiArray(
        layout=MultiArrayLayout(dim=[dimension]), data=[float(value) for value in values]
    )
