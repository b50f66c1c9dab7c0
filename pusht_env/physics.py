"""Physics of PushT: a kinematic pusher moves a T-shaped block in a walled square, seen from above.

Bodies, controller and initial states are those of Diffusion Policy (Chi et al., 2023, arXiv:2303.04137), so
that its demonstrations replay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pymunk

from pusht_env.block import BAR, STEM

WORKSPACE_SIZE = 512.0
"""Side of the square workspace in px."""

PUSHER_RADIUS = 15.0
WALL_CORNERS = ((5, 506), (5, 5), (506, 5), (506, 506))
WALL_RADIUS = 2.0

CONTROL_HZ = 10
PHYSICS_HZ = 100

STIFFNESS = 100.0
"""Gain k_p of the pusher's controller on its distance to the target, in 1/s²."""

DAMPING = 20.0
"""Gain k_v of the pusher's controller on its velocity, in 1/s."""

_TIMESTEP = 1.0 / PHYSICS_HZ
_STEPS_PER_CONTROL = PHYSICS_HZ // CONTROL_HZ


class PushTPhysics:
    """One episode's pusher and block: made by `from_state` or `from_seed`, moved by `advance`.

    Each episode is an object of its own, because the engine keeps contacts from step to step. They must not reach from
    one episode into the next.
    """

    def __init__(self) -> None:
        self._space = pymunk.Space()
        # Share of velocity kept per second. With none, the block stops when nothing pushes it, as on a table.
        self._space.damping = 0.0
        left_wall, top_wall, right_wall, bottom_wall = (
            pymunk.Segment(self._space.static_body, WALL_CORNERS[start], WALL_CORNERS[end], WALL_RADIUS)
            for start, end in ((0, 1), (1, 2), (2, 3), (0, 3))
        )
        self._space.add(left_wall, top_wall, right_wall, bottom_wall)

        # The positions and the order in which bodies are added decide the order in which the engine solves contacts.
        # The demonstrations replay only in this one.
        self._pusher = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self._pusher.position = 256.0, 400.0
        self._space.add(self._pusher, pymunk.Circle(self._pusher, PUSHER_RADIUS))

        bar, stem = _corners(BAR), _corners(STEM)
        # Diffusion Policy counts the bar's moment of inertia twice and the stem's not at all.
        self._block = pymunk.Body(mass=1.0, moment=2 * pymunk.moment_for_poly(1.0, bar))
        shapes = pymunk.Poly(self._block, bar), pymunk.Poly(self._block, stem)
        self._block.center_of_gravity = (shapes[0].center_of_gravity + shapes[1].center_of_gravity) / 2
        self._block.position = 256.0, 300.0
        self._space.add(self._block, *shapes)

        self._contact_points = [0]
        self._space.on_collision(post_solve=_count_contact_points, data=self._contact_points)

    @classmethod
    def from_state(cls, state: Sequence[float]) -> PushTPhysics:
        """Pusher and block at rest at `state`: pusher x, y, block x, y in px and block angle in rad."""
        physics = cls()
        pusher_x, pusher_y, block_x, block_y, block_angle = state
        physics._pusher.position = pusher_x, pusher_y
        # Turning the block about its centre of gravity moves its origin, so the position has to come last.
        physics._block.angle = block_angle
        physics._block.position = block_x, block_y
        return physics

    @classmethod
    def from_seed(cls, seed: int) -> PushTPhysics:
        """Diffusion Policy's initial state for a seed from 0 to 2³² − 1."""
        random = np.random.RandomState(seed)
        physics = cls()
        physics._pusher.position = random.randint(50, 450), random.randint(50, 450)
        # The demonstrations were recorded with the angle set last, and with one physics step at rest.
        physics._block.position = random.randint(100, 400), random.randint(100, 400)
        physics._block.angle = random.randn() * 2 * math.pi - math.pi
        physics._space.step(_TIMESTEP)
        return physics

    @property
    def pusher_position(self) -> tuple[float, float]:
        """Pusher x, y in px."""
        x, y = self._pusher.position
        return x, y

    @property
    def block_pose(self) -> tuple[float, float, float]:
        """Block x, y in px and angle in [0, 2π)."""
        x, y = self._block.position
        angle = self._block.angle % math.tau
        # The remainder of a tiny negative angle rounds up to 2π itself.
        return x, y, angle if angle < math.tau else 0.0

    def advance(self, target_x: float, target_y: float) -> int:
        """Drive the pusher towards a target position in px for one control step of 0.1 s.

        Returns:
            Contact points per physics step, rounded up.
        """
        space, pusher = self._space, self._pusher
        self._contact_points[0] = 0
        velocity_x, velocity_y = pusher.velocity
        for _ in range(_STEPS_PER_CONTROL):
            x, y = pusher.position
            velocity_x += (STIFFNESS * (target_x - x) - DAMPING * velocity_x) * _TIMESTEP
            velocity_y += (STIFFNESS * (target_y - y) - DAMPING * velocity_y) * _TIMESTEP
            pusher.velocity = velocity_x, velocity_y
            space.step(_TIMESTEP)
        return math.ceil(self._contact_points[0] / _STEPS_PER_CONTROL)


def _corners(rectangle: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    left, right, top, bottom = rectangle
    return [(left, top), (left, bottom), (right, bottom), (right, top)]


def _count_contact_points(arbiter: pymunk.Arbiter, space: pymunk.Space, contact_points: list[int]) -> None:
    contact_points[0] += len(arbiter.contact_point_set.points)
