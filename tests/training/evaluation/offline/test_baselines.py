from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from policy import PolicyConfig
from policy.task import Command, Part, Task
from training.data.demonstrations import Demonstrations
from training.evaluation.offline.baselines import hold_baseline, mean_baseline, observed_positions
from training.evaluation.offline.chunks import demonstrated_chunks

Recorded = Callable[..., Demonstrations]
MEAN = np.array([0.25, -0.5, 0.75], np.float32)


def renamed(arm: Task, *observed: tuple[str, str]) -> Task:
    """The arm with other names and units of its four observed numbers."""
    names, units = zip(*observed, strict=True)
    first = Part(name="tool", names=names[:2], units=units[:2])
    return replace(arm, observation=(first, Part(name="arm", names=names[2:], units=units[2:])))


@pytest.mark.parametrize(
    ("observed", "positions"),
    [
        ([("x", "m"), ("y", "m"), ("shoulder", "rad"), ("elbow", "rad")], (2, 3, None)),
        ([("x", "m"), ("y", "m"), ("shoulder", "deg"), ("elbow", "rad/s")], (None, None, None)),
        ([("gripper", "m"), ("elbow", "rad"), ("elbow", "m"), ("shoulder", "rad")], (3, 1, 0)),
        (
            [("elbow", "rad"), ("y", "m"), ("shoulder", "rad"), ("elbow", "rad")],
            (2, None, None),
        ),  # two elbows
    ],
)
def test_a_position_is_observed_under_the_name_and_unit_of_its_action(
    arm: Task, observed: list[tuple[str, str]], positions: tuple[int | None, ...]
) -> None:
    assert observed_positions(renamed(arm, *observed)) == positions


def test_observed_positions_are_held_and_of_the_others_the_last_action(arm: Task, recorded: Recorded) -> None:
    demonstrations = recorded(3, 12)
    chunks = demonstrated_chunks(demonstrations, [1], PolicyConfig())
    baseline = hold_baseline(arm, chunks, MEAN)
    assert baseline.actions.shape == (2, 8, 3)
    assert (baseline.actions == baseline.actions[:, :1]).all()
    np.testing.assert_array_equal(baseline.actions[:, 0, :2], demonstrations.observations[[3, 11], 2:])
    assert baseline.actions[0, 0, 2] == MEAN[2]  # no action yet
    assert baseline.actions[1, 0, 2] == demonstrations.actions[10, 2]
    assert baseline.meaning == (
        "hold the last position; the last action of gripper, not observed under that name and unit"
    )


def test_what_is_held_is_said(arm: Task, recorded: Recorded) -> None:
    chunks = demonstrated_chunks(recorded(12), [0], PolicyConfig())
    other = renamed(arm, ("a", ""), ("b", ""), ("c", ""), ("d", ""))
    held = hold_baseline(other, chunks, MEAN)
    assert held.meaning == "hold the last action (no action is observed under its own name and unit)"
    np.testing.assert_array_equal(held.actions[0, 0], MEAN)
    np.testing.assert_array_equal(held.actions[1, 0], chunks.last_actions[1])
    joints = replace(arm, action=Command(names=("elbow",), units=("rad",), lower=(None,), upper=(None,)))
    chunks = replace(chunks, actions=chunks.actions[..., :1], last_actions=chunks.last_actions[:, :1])
    assert hold_baseline(joints, chunks, MEAN[:1]).meaning == "hold the last position"


def test_the_mean_is_the_same_at_every_step(recorded: Recorded) -> None:
    chunks = demonstrated_chunks(recorded(12), [0], PolicyConfig())
    np.testing.assert_array_equal(mean_baseline(MEAN, "", chunks).actions, np.broadcast_to(MEAN, (2, 8, 3)))
