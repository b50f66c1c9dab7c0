"""A scripted expert: it sees what a policy sees, and knows the arm's geometry."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from viperx.environment import CLOSED, CUBE_SIDE, OPEN, Observation

# The arm in its vertical plane, in m: gym-aloha's vx300s_left.xml.
SHOULDER_HEIGHT = 0.12705
ELBOW = (0.05955, 0.3)  # from the shoulder, with all joints at 0
UPPER_ARM, UPPER_ARM_LEAN = math.hypot(*ELBOW), math.atan2(*ELBOW)
FOREARM = 0.3
HAND = 0.069744 + 0.135  # from the wrist to between the fingers' tips

FASTEST = 0.03, 0.2  # of the hand, in a control step: m, rad
ABOVE, GRASP = 0.1, CUBE_SIDE / 2  # heights of the fingers' tips over the table


def joints_for(x: float, y: float, z: float, *, yaw: float) -> NDArray[np.float64]:
    """Positions (6,) in rad of the joints that put the fingertips to a place in m, pointing down.

    Raises:
        ValueError: for a place out of reach.
    """
    waist = math.atan2(y, x)
    out, up = math.hypot(x, y), z + HAND - SHOULDER_HEIGHT
    bend = (out**2 + up**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    if abs(bend) > 1:
        raise ValueError(f"the arm does not reach {x:.3f}, {y:.3f}, {z:.3f} m")
    between = math.acos(bend)
    lean = math.atan2(out, up) - math.atan2(
        FOREARM * math.sin(between), UPPER_ARM + FOREARM * math.cos(between)
    )
    shoulder = lean - UPPER_ARM_LEAN
    pitch = lean + between - math.pi / 2  # of the forearm, downwards
    return np.array([waist, shoulder, pitch - shoulder, 0.0, math.pi / 2 - pitch, waist - yaw])


class Expert:
    """Picks the cube up and puts it onto the target: one action an observation, from the beginning of an episode on.

    Its hand moves along straight lines. It goes on to the next phase when the hand is there, and grips or lets go for
    half a second.
    """

    def __init__(self, observation: Observation) -> None:
        self._hand = np.array(_hand_pose(observation["arm"]))
        self._phase = 0
        self._waited = 0

    def act(self, observation: Observation) -> NDArray[np.float64]:
        """Target positions (7,) of the joints in rad and of the gripper in m."""
        cube_x, cube_y, _, cube_yaw = observation["cube"]
        target_x, target_y = observation["target"]
        over_cube, over_target = (cube_x, cube_y, cube_yaw), (target_x, target_y, self._hand[3])
        (x, y, yaw), height, gripper, steps = (
            (over_cube, ABOVE, OPEN, 0),
            (over_cube, GRASP, OPEN, 0),
            ((*self._hand[:2], self._hand[3]), GRASP, CLOSED, 5),
            ((*self._hand[:2], self._hand[3]), ABOVE, CLOSED, 0),
            (over_target, ABOVE, CLOSED, 0),
            (over_target, GRASP + 0.002, CLOSED, 0),
            ((*self._hand[:2], self._hand[3]), GRASP + 0.002, OPEN, 5),
            ((*self._hand[:2], self._hand[3]), ABOVE, OPEN, 0),
        )[self._phase]
        there = self._move(np.array([x, y, height, yaw]))
        self._waited += 1
        if there and self._waited >= steps and self._phase < 7:
            self._phase, self._waited = self._phase + 1, 0
        x, y, z, yaw = self._hand
        return np.array([*joints_for(x, y, z, yaw=yaw), gripper])

    def _move(self, goal: NDArray[np.float64]) -> bool:
        """Move the hand's target as far towards a goal as it may in one control step."""
        way = goal - self._hand
        share = max(np.linalg.norm(way[:3]) / FASTEST[0], abs(way[3]) / FASTEST[1], 1.0)
        self._hand = self._hand + way / share
        return bool(share == 1.0)


def _hand_pose(arm: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Where the fingertips are: x, y, z in m and yaw in rad, of a hand that points about downwards."""
    waist, shoulder, elbow, _, wrist, rotate, _ = arm
    pitch = shoulder + elbow
    out = (
        UPPER_ARM * math.sin(shoulder + UPPER_ARM_LEAN)
        + FOREARM * math.cos(pitch)
        + HAND * math.cos(pitch + wrist)
    )
    up = (
        UPPER_ARM * math.cos(shoulder + UPPER_ARM_LEAN)
        - FOREARM * math.sin(pitch)
        - HAND * math.sin(pitch + wrist)
    )
    return out * math.cos(waist), out * math.sin(waist), SHOULDER_HEIGHT + up, waist - rotate
