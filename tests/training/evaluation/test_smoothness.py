from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation.smoothness import Smoothness, smoothness


@given(
    coefficients=st.lists(
        st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=3
    ),
    steps=st.integers(4, 40),
)
def test_constant_acceleration_has_no_jerk(
    coefficients: list[tuple[float, float, float]], steps: int
) -> None:
    times = np.arange(steps)
    commands = np.stack([a + b * times + c * times**2 for a, b, c in coefficients], axis=1)
    assert smoothness(commands).jerk == pytest.approx(0, abs=1e-8)


def test_a_jump_is_seen_in_speed_and_jerk() -> None:
    """The third difference of a step of height 5 is 5, −10, 5."""
    commands = [[0.0, 0.0]] * 4 + [[3.0, 4.0]] * 4
    found = smoothness(commands)
    assert found.top_speed == pytest.approx(5)
    assert found.jerk == pytest.approx(np.sqrt((25 + 100 + 25) / 5))


@pytest.mark.parametrize("steps", [0, 1])
def test_what_does_not_move_is_smooth(steps: int) -> None:
    assert smoothness(np.zeros((steps, 2))) == Smoothness(0.0, 0.0)
