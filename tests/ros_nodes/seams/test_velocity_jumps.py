from __future__ import annotations

import numpy as np
import pytest

from ros_nodes.seams.velocity_jumps import velocity_jumps


def test_a_jump_is_the_change_of_velocity_after_its_seam() -> None:
    times = np.arange(0, 1, 0.01)
    bend = 0.5
    positions = np.stack([np.where(times < bend, 100 * times, 50 - 200 * (times - bend)), 0 * times], axis=1)
    calm, bent = velocity_jumps(times, positions, seams=[0.1, 0.45], seconds=0.2)
    assert calm == pytest.approx(0, abs=1e-6)
    assert bent == pytest.approx(300)


def test_uneven_updates_make_no_jump() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.005, 0.03, 100))
    (jump,) = velocity_jumps(times, np.stack([3 * times, -4 * times], axis=1), seams=[0.2], seconds=0.5)
    assert jump == pytest.approx(0, abs=1e-6)
