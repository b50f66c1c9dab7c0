"""A scripted expert: it sees what a policy sees, and knows the arm's geometry."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from viperx.environment import Observation

# The arm in its vertical plane, in m: gym-aloha's vx300s_left.xml.
SHOULDER_HEIGHT = 0.12705
ELBOW = (0.05955, 0.3)  # from the shoulder, with all joints at 0
UPPER_ARM, UPPER_ARM_LEAN = math.hypot(*ELBOW), math.atan2(*ELBOW)
FOREARM = 0.3
HAND = 0.069744 + 0.1537  # from the wrist to the fingertips

FASTEST = 0.04  # of the fingertips, m in a control step
ABOVE, DOWN = 0.08, 0.016  # heights of the fingertips over the table in m; a button's top is at 0.032
NEAR = 0.02  # m from a button's middle within which it is pressed


def joints_for(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Positions (6,) in rad of the joints that put the fingertips to a place in m, pointing down."""
    out, up = math.hypot(x, y), z + HAND - SHOULDER_HEIGHT
    bend = (out**2 + up**2 - UPPER_ARM**2 - FOREARM**2) / (2 * UPPER_ARM * FOREARM)
    between = math.acos(min(max(bend, -1.0), 1.0))
    lean = math.atan2(out, up) - math.atan2(
        FOREARM * math.sin(between), UPPER_ARM + FOREARM * math.cos(between)
    )
    shoulder = lean - UPPER_ARM_LEAN
    pitch = lean + between - math.pi / 2  # of the forearm, downwards
    return np.array([math.atan2(y, x), shoulder, pitch - shoulder, 0.0, math.pi / 2 - pitch, 0.0])


def fingertips(arm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where they are, x, y, z in m, of a hand that points about downwards."""
    waist, shoulder, elbow, _, wrist, _ = arm
    pitch = shoulder + elbow
    lean, hand = shoulder + UPPER_ARM_LEAN, pitch + wrist
    out = UPPER_ARM * math.sin(lean) + FOREARM * math.cos(pitch) + HAND * math.cos(hand)
    up = UPPER_ARM * math.cos(lean) - FOREARM * math.sin(pitch) - HAND * math.sin(hand)
    return np.array([out * math.cos(waist), out * math.sin(waist), SHOULDER_HEIGHT + up])


def expert_action(observation: Observation) -> NDArray[np.float64]:
    """Target positions (6,) of the joints in rad: the next move of pressing the next button.

    It is a function of what is observed alone, so that it goes on from wherever the arm is.
    """
    hand = fingertips(observation["arm"])
    button = observation["second"] if observation["lit"][0] > 0.5 else observation["first"]
    across = button - hand[:2]
    far = float(np.linalg.norm(across))
    height = DOWN if far < NEAR else ABOVE
    if far >= NEAR:  # up first, then across
        across = across * np.clip((hand[2] - DOWN) / (0.5 * ABOVE), 0.1, 1.0)
    way = np.append(across, height - hand[2])
    return joints_for(*(hand + way / max(float(np.linalg.norm(way)) / FASTEST, 1.0)))
