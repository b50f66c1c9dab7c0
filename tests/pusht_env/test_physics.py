from __future__ import annotations

import math

import numpy as np
import pytest

from pusht_env.physics import PushTPhysics


def test_the_pusher_reaches_its_target_without_passing_it() -> None:
    physics = PushTPhysics.from_state([100.0, 400.0, 400.0, 100.0, 0.0])
    path = []
    for _ in range(30):
        assert physics.advance(300.0, 400.0) == 0
        path.append(physics.pusher_position)
    x, y = np.array(path).T

    assert (np.diff(x) > 0).all()
    assert 300.0 - 1e-3 < x[-1] <= 300.0
    assert (y == 400.0).all()


def test_the_pusher_follows_the_controllers_difference_equation() -> None:
    physics = PushTPhysics.from_state([100.0, 400.0, 400.0, 100.0, 0.0])
    position, velocity = 100.0, 0.0
    for _ in range(10):
        velocity += (100 * (300.0 - position) - 20 * velocity) * 0.01
        position += velocity * 0.01

    physics.advance(300.0, 400.0)

    assert physics.pusher_position[0] == pytest.approx(position, abs=1e-9)


def test_the_block_moves_only_while_it_is_pushed() -> None:
    # The bar's long side faces up and the pusher comes from there, in line with the centre of gravity.
    physics = PushTPhysics.from_state([256.0, 150.0, 256.0, 250.0, 0.0])
    assert physics.advance(256.0, 180.0) == 0
    assert physics.block_pose == (256.0, 250.0, 0.0)

    contacts = [physics.advance(256.0, 300.0) for _ in range(10)]
    x, y, angle = physics.block_pose
    assert max(contacts) == 1
    assert x == pytest.approx(256.0, abs=1e-6)
    assert angle == pytest.approx(0.0, abs=1e-6) or angle == pytest.approx(math.tau, abs=1e-6)
    assert y == pytest.approx(300.0 + 15.0, abs=1.0)

    physics.advance(256.0, 200.0)
    at_rest = physics.block_pose
    physics.advance(256.0, 150.0)
    assert physics.block_pose == at_rest


def test_a_tiny_negative_angle_reads_as_zero_not_as_two_pi() -> None:
    assert PushTPhysics.from_state([60.0, 60.0, 256.0, 256.0, -1e-20]).block_pose == (256.0, 256.0, 0.0)


def test_walls_stop_the_block() -> None:
    # Pushed off centre to the right, the block meets the wall, whose inner face is at 506 - 2 px.
    physics = PushTPhysics.from_state([60.0, 256.0, 200.0, 256.0, math.pi / 2])
    for target in np.linspace(60.0, 350.0, 40):
        physics.advance(float(target), 256.0)
    x, _, _ = physics.block_pose

    assert x <= 504.0
