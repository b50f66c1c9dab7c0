from __future__ import annotations

import numpy as np
import pytest

from ros_nodes.commands.chunk_messages import trajectory_message
from ros_nodes.commands.chunk_points import points_to_come
from ros_nodes.soak.command_record import JOINTS, CommandRecord

PERIOD = 10**8
HORIZON = np.random.default_rng(0).uniform(0, 500, (16, 2))


def chunk(step: int, shift: float = 0.0) -> object:
    points = points_to_come(
        HORIZON + shift, begin=1, count=8, velocities=False, stamp_ns=step * PERIOD, period_ns=PERIOD
    )
    return trajectory_message(points, JOINTS)


def test_commands_are_the_targets_of_control_steps() -> None:
    record = CommandRecord(PERIOD)
    record.follow(chunk(10))
    for step in range(10, 20):
        record.observe(step * PERIOD, (1.0, 2.0), (0.0, 0.0))
        if step == 12:
            record.follow(chunk(10))
            record.follow(chunk(3))  # over already
    record.observe(40 * PERIOD, (3.0, 4.0), (0.0, 0.0))
    first, second = record.episodes
    assert second == [(3.0, 4.0)]
    assert first[:3] == [(1.0, 2.0)] * 3, "nothing was heard yet"
    np.testing.assert_allclose(first[3:8], HORIZON[4:9])
    np.testing.assert_allclose(first[8:], [HORIZON[8]] * 2)
    assert record.jumps == []


def test_a_jump_is_the_distance_of_points_that_are_due_at_the_same_times() -> None:
    record = CommandRecord(PERIOD)
    record.observe(PERIOD, (0.0, 0.0), (0.0, 0.0))
    record.follow(chunk(1))
    record.follow(chunk(1, shift=3.0))
    assert record.jumps == pytest.approx([3 * np.sqrt(2)])
