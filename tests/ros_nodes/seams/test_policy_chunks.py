from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ros_nodes.seams.policy_chunks import recorded_chunks
from ros_nodes.seams.synthetic_chunks import PERIOD, interval


@pytest.mark.parametrize("latency", [0.05, 0.3])
def test_a_policys_chunks_come_as_often_as_synthetic_ones(checkpoint: Path, latency: float) -> None:
    chunks = recorded_chunks(checkpoint, latency=latency, steps=24)
    steps = [step for step, _ in chunks]
    assert steps[0] == 0
    assert set(np.diff(steps)[1:]) == {round(interval(latency) / PERIOD)}
    assert {actions.shape for _, actions in chunks} == {(16, 2)}
    again = recorded_chunks(checkpoint, latency=latency, steps=24)
    np.testing.assert_array_equal(chunks[-1][1], again[-1][1])
