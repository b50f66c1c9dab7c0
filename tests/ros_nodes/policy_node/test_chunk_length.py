from __future__ import annotations

import pytest

from policy import PolicyConfig
from ros_nodes.policy_node.chunk_length import check_speed, point_count

CONFIG = PolicyConfig()


def test_the_tail_follows_the_chunk() -> None:
    assert point_count(CONFIG, tail=0, synchronous=True) == CONFIG.action_steps == 8
    assert point_count(CONFIG, tail=7, synchronous=False) == 15


def test_a_tail_that_is_not_predicted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trajectory.tail_points must be at most 7, .* got 8"):
        point_count(CONFIG, tail=8, synchronous=False)
    with pytest.raises(ValueError, match=r"trajectory.tail_points must be 0 with synchronous, got 1"):
        point_count(CONFIG, tail=1, synchronous=True)


def test_a_policy_too_slow_for_its_points_is_refused() -> None:
    check_speed(0.69, count=8, period_ns=10**8)
    with pytest.raises(ValueError, match=r"takes 0.700 s to compute.* none of its 8 points would be in time"):
        check_speed(0.7, count=8, period_ns=10**8)
    check_speed(0.7, count=9, period_ns=10**8)
