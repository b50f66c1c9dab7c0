from __future__ import annotations

from itertools import pairwise
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


def test_a_hand_over_brings_chunks_together(checkpoint: Path) -> None:
    def jump(hand_over: str) -> float:
        chunks = recorded_chunks(checkpoint, latency=0.15, steps=48, hand_over=hand_over)
        between = [
            np.abs(later[1:3] - earlier[1 + after - before :][:2]).mean()
            for (before, earlier), (after, later) in pairwise(chunks)
        ]
        return float(np.mean(between))

    assert jump("inpaint") < 0.1 * jump("replace")
