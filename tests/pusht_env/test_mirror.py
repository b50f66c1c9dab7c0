"""Every demonstration has a mirror image that the simulator replays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pusht_env.block import BAR, GOAL_POSE, OUTLINE, STEM, to_world
from pusht_env.mirror import mirrored_points, mirrored_states
from pusht_env.physics import PushTPhysics

Array = NDArray[np.float64]


def replay(state: Sequence[float], actions: Array) -> Array:
    physics = PushTPhysics.from_state(state)
    states = [(*physics.pusher_position, *physics.block_pose)]
    for action in actions:
        physics.advance(*action)
        states.append((*physics.pusher_position, *physics.block_pose))
    return np.array(states)


def meets_a_wall(states: Array) -> bool:
    corners = to_world(OUTLINE, states[:, 2:])
    return bool(corners.min() <= 7 or corners.max() >= 504)


def begins_inside_the_block(state: Array) -> bool:
    x, y, angle = state[2:]
    away = (state[:2] - (x, y)) @ [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return any(left < away[0] < right and top < away[1] < bottom for left, right, top, bottom in (BAR, STEM))


@given(state=st.tuples(*[st.floats(0, 512)] * 4, st.floats(-10, 10)))
def test_the_image_of_the_image_is_the_state(state: tuple[float, ...]) -> None:
    np.testing.assert_allclose(mirrored_states(mirrored_states(state)), state, atol=1e-9)


@given(pose=st.tuples(st.floats(0, 512), st.floats(0, 512), st.floats(-10, 10)))
def test_the_image_of_the_block_is_the_block_at_the_image_of_its_pose(pose: tuple[float, ...]) -> None:
    """Its outline is the same set of corners, in the other direction."""
    image = to_world(OUTLINE, mirrored_states((0, 0, *pose))[2:])
    corners = mirrored_points(to_world(OUTLINE, pose))
    distances = np.linalg.norm(image[:, None] - corners, axis=2)
    assert distances.min(axis=0).max() < 1e-6
    assert distances.min(axis=1).max() < 1e-6


def test_the_goal_is_its_own_image() -> None:
    np.testing.assert_allclose(mirrored_states((0, 0, *GOAL_POSE))[2:], GOAL_POSE, atol=1e-12)


def test_all_demonstrations_replay_in_the_mirror(demonstrations_path: Path) -> None:
    """But for six in which the block meets a wall, and another that begins with the pusher inside the block."""
    store = zarr.open_group(str(demonstrations_path), mode="r")
    states, actions = (np.asarray(store[f"data/{name}"], dtype=np.float64) for name in ("state", "action"))
    ends = np.asarray(store["meta/episode_ends"]).tolist()
    parted = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        seen = replay(states[start].tolist(), actions[start : end - 1])
        image = replay(mirrored_states(states[start]).tolist(), mirrored_points(actions[start : end - 1]))
        difference = np.abs(mirrored_states(seen) - image)
        difference[:, 4] = np.abs((difference[:, 4] + math.pi) % math.tau - math.pi)
        if difference.max() > 1e-6:
            assert difference.max() < 10
            parted.append((meets_a_wall(seen) or meets_a_wall(image), begins_inside_the_block(states[start])))
    assert len(parted) == 7
    assert sum(at_wall for at_wall, _ in parted) == 6
    assert all(at_wall or inside for at_wall, inside in parted)
    assert len(ends) == 206


@pytest.mark.parametrize("shape", [(2,), (7, 2), (3, 7, 2)])
def test_points_keep_their_shape(shape: tuple[int, ...]) -> None:
    assert mirrored_points(np.zeros(shape)).shape == shape
