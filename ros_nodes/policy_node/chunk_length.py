"""How many points a trajectory has, and whether they can be in time and inside the limits. Knows no ROS."""

from __future__ import annotations

from policy import PolicyConfig
from policy.robot.joint_limits import JointLimits
from policy.robot.times import SECOND


def point_count(config: PolicyConfig, *, tail: int, synchronous: bool) -> int:
    """How many points are sent of a prediction that comes at once.

    Args:
        config: of the policy.
        tail: number of points after the chunk.
        synchronous: whether the world stands still from the end of a chunk until the next one.

    Raises:
        ValueError: for more points after the chunk than there are.
    """
    if synchronous and tail:
        raise ValueError(f"trajectory.tail_points must be 0 with synchronous, got {tail}")
    most = config.horizon - (config.observation_steps - 1) - config.action_steps
    if tail > most:
        raise ValueError(
            f"trajectory.tail_points must be at most {most}, what the policy predicts after its chunk, got {tail}"
        )
    return config.action_steps + tail


def check_speed(inference: float, *, count: int, period_ns: int) -> None:
    """Refuse a policy whose chunks would be over before they are sent.

    Args:
        inference: inference time in s.
        count: number of points that are sent of a prediction that comes at once.
        period_ns: control period in ns.

    Raises:
        ValueError: naming the times.
    """
    if round(inference * SECOND) + period_ns >= count * period_ns:
        raise ValueError(
            f"a chunk takes {inference:.3f} s to compute, and is sent a control period of {period_ns / SECOND:g} s "
            f"ahead: none of its {count} points would be in time (fewer sampler.steps, or more trajectory.tail_points)"
        )


def check_over_limit(over_limit: str, joints: JointLimits, *, synchronous: bool) -> None:
    """Refuse chunks that would take longer than the world waits for.

    Args:
        over_limit: what is done with a chunk that is too fast for the joints.
        joints: with their limits.
        synchronous: whether the world stands still from the end of a chunk until the next one.

    Raises:
        ValueError: if chunks may be slowed that must not.
    """
    if synchronous and over_limit == "slow" and joints.limits_motion:
        raise ValueError(
            "trajectory.over_limit must be clip with synchronous and limits of speeds or accelerations: the world ends "
            "a chunk after its control steps"
        )
