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

FASTEST = 0.04, 0.25  # of the hand, in a control step: m, rad
ABOVE, GRASP = 0.1, CUBE_SIDE / 2  # heights of the fingers' tips over the table in m
HELD, MISSED = 0.044, 0.037  # positions of the gripper in m between which it holds the cube


def joints_for(x: float, y: float, z: float, *, yaw: float) -> NDArray[np.float64]:
    """Positions (6,) in rad of the joints that put the fingertips to a place in m, pointing down."""
    waist = math.atan2(y, x)
    out, up = math.hypot(x, y), z + HAND - SHOULDER_HEIGHT
    bend = (out**2 + up**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    between = math.acos(min(max(bend, -1.0), 1.0))
    lean = math.atan2(out, up) - math.atan2(
        FOREARM * math.sin(between), UPPER_ARM + FOREARM * math.cos(between)
    )
    shoulder = lean - UPPER_ARM_LEAN
    pitch = lean + between - math.pi / 2  # of the forearm, downwards
    return np.array([waist, shoulder, pitch - shoulder, 0.0, math.pi / 2 - pitch, waist - yaw])


def expert_action(observation: Observation) -> NDArray[np.float64]:
    """Target positions (7,) of the joints in rad and of the gripper in m: the next move of picking and placing.

    It is a function of what is observed alone, so that it goes on from wherever arm and cube are: a cube that it has
    missed or lost is picked up again.
    """
    hand = np.array(hand_pose(observation["arm"]))
    gripper = observation["arm"][-1]
    cube, cube_yaw = observation["cube"][:3], observation["cube"][3]
    target = observation["target"]
    beside_cube = float(np.linalg.norm(cube[:2] - hand[:2]))
    beside_target = float(np.linalg.norm(cube[:2] - target))
    between_fingers = beside_cube < 0.02 and abs(cube[2] - hand[2]) < 0.02
    if beside_target < 0.015 and cube[2] < GRASP + 0.006:
        return _action(hand, OPEN)
    if between_fingers and gripper < HELD:
        return _action(_towards(hand, target, yaw=hand[3], over=beside_target), CLOSED)
    if gripper < 0.95 * OPEN and not (between_fingers and gripper > MISSED):
        return _action(hand + np.array([0.0, 0.0, FASTEST[0], 0.0]), OPEN)
    reaches = beside_cube < 0.012 and hand[2] < GRASP + 0.006
    return _action(_towards(hand, cube[:2], yaw=cube_yaw, over=beside_cube), CLOSED if reaches else OPEN)


def _towards(
    hand: NDArray[np.float64], place: NDArray[np.float64], *, yaw: float, over: float
) -> NDArray[np.float64]:
    """The hand's next pose on its way to the table at a place (2,): up, across, and down once it is over it."""
    height = GRASP if over < 0.012 else ABOVE
    freedom = np.clip((hand[2] - GRASP) / (0.5 * ABOVE), 0.1, 1.0) if over > 0.012 else 1.0
    across = np.append(place - hand[:2], 0.0) * freedom
    way = np.append(across[:2], [height - hand[2], yaw - hand[3]])
    share = max(np.linalg.norm(way[:3]) / FASTEST[0], abs(way[3]) / FASTEST[1], 1.0)
    return hand + way / share


def _action(hand: NDArray[np.float64], gripper: float) -> NDArray[np.float64]:
    x, y, z, yaw = hand
    return np.array([*joints_for(x, y, z, yaw=yaw), gripper])


def hand_pose(arm: NDArray[np.float64]) -> tuple[float, float, float, float]:
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
