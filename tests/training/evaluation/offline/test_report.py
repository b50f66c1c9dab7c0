from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest

from policy import DiffusionPolicy, SamplerConfig
from policy.task import Command, Part, Task
from training.data.demonstrations import Demonstrations
from training.evaluation.offline.judgement import Judgement, judge
from training.evaluation.offline.plot import MOST_CHUNKS, MOST_PANELS, chunks_figure
from training.evaluation.offline.report import write_judgement
from training.evaluation.offline.table import format_judgement

Recorded = Callable[..., Demonstrations]


@pytest.fixture(scope="module")
def judgement(arm_policy: DiffusionPolicy, recorded: Recorded, arm: Task) -> Judgement:
    policy = arm_policy.with_sampler(SamplerConfig("sequential", "ddim", 2))
    return judge(policy, recorded(40, 40, 25), episodes=[0, 2], noise_seeds=[0, 1])


@pytest.fixture(scope="module")
def many(judgement: Judgement) -> Judgement:
    """The same with ten times as many dimensions, of which the later ones are worse."""
    count = 30
    names = tuple(f"joint_{index}" for index in range(count))
    units, limits = ("rad",) * count, (None,) * count
    task = Task(
        name="many",
        rate=20,
        observation=(Part(name="arm", names=names, units=units),),
        action=Command(names=names, units=units, lower=limits, upper=limits),
    )
    chunks = replace(judgement.chunks, actions=np.tile(judgement.chunks.actions, 10))
    errors = replace(judgement.errors, mean_absolute=np.tile(np.arange(count, dtype=float), (2, 2, 1)))
    return replace(
        judgement,
        task=task,
        chunks=chunks,
        sampled=np.tile(judgement.sampled, 10),
        errors=errors,
        ranges=np.ones(count),
    )


def test_table_and_picture_are_written(judgement: Judgement, tmp_path: Path) -> None:
    printed = write_judgement(judgement, tmp_path, "held_out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held_out.csv", "held_out.png"]
    assert imageio.imread(tmp_path / "held_out.png").std() > 5  # not blank
    with open(tmp_path / "held_out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["unit"]) for row in rows] == [
        ("shoulder", "rad"),
        ("elbow", "rad"),
        ("gripper", "m"),
    ]
    for row, expected in zip(rows, judgement.summary["dimensions"], strict=True):
        for method in ("policy", "hold", "mean"):
            assert float(row[f"{method}_mean_absolute"]) == expected[method]["mean_absolute"]["mean"]
            assert float(row[f"{method}_p95"]) == expected[method]["p95"]
    assert "gripper (m)" in printed
    assert "65 steps of 2 episodes (0, 2), 9 chunks × 2 noise seeds" in printed
    assert "mean: the mean action of the 1 other episode\n" in printed


def errors(policy: float, hold: float, mean: float) -> dict[str, Any]:
    numbers = {"policy": policy, "hold": hold, "mean": mean}
    return {
        name: {"mean_absolute": {"mean": value, "low": None, "high": None}, "rmse": value, "p95": value}
        for name, value in numbers.items()
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([errors(1, 2, 3), errors(1, 1, 3)], "the policy's mean absolute error is below both baselines'"),
        ([errors(1, 2, 3), errors(2, 1, 3)], "better than the policy: hold in 1 of 2 dimensions"),
        (
            [errors(3, 2, 1), errors(2, 1, 3)],
            "better than the policy: hold in 2 and mean in 1 of 2 dimensions",
        ),
    ],
)
def test_a_baseline_that_wins_is_named(judgement: Judgement, rows: list[dict[str, Any]], said: str) -> None:
    dimensions = [{"name": f"d{index}", "unit": "", **row} for index, row in enumerate(rows)]
    assert said in format_judgement({**judgement.summary, "dimensions": dimensions})


def test_every_dimension_has_a_panel_with_its_name_and_unit(
    arm_policy: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    policy = arm_policy.with_sampler(SamplerConfig("sequential", "ddim", 2))
    judgement = judge(policy, recorded(40), episodes=[0], noise_seeds=[0, 1])
    panels = [axes for axes in chunks_figure(judgement).axes if axes.axison]
    assert [(axes.get_title(), axes.get_ylabel()) for axes in panels] == [
        ("shoulder", "rad"),
        ("elbow", "rad"),
        ("gripper", "m"),
    ]
    demonstrated = judgement.chunks.actions[judgement.chunks.is_demonstrated]
    line = panels[2].get_lines()[0]
    np.testing.assert_allclose(line.get_xdata(), np.arange(40) / 20)
    np.testing.assert_array_equal(line.get_ydata(), demonstrated[:, 2])
    predicted = np.asarray(panels[2].get_lines()[2].get_ydata()).reshape(-1, 9)
    np.testing.assert_array_equal(predicted[:, :8], judgement.sampled[1, ..., 2])


def test_of_many_dimensions_the_worst_are_shown_and_said(many: Judgement) -> None:
    figure = chunks_figure(many)
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles == [f"joint_{index}" for index in range(30 - MOST_PANELS, 30)]
    assert f"The {MOST_PANELS} of 30 dimensions with the largest" in figure.get_suptitle()


def test_of_a_long_episode_the_beginning_is_shown_and_said(
    arm_policy: DiffusionPolicy, recorded: Recorded, arm: Task
) -> None:
    policy = arm_policy.with_sampler(SamplerConfig("sequential", "ddim", 1))
    figure = chunks_figure(judge(policy, recorded(8 * 70), episodes=[0], noise_seeds=[0]))
    assert f"the first {MOST_CHUNKS} of 70 chunks" in figure.get_suptitle()
    assert len(np.asarray(figure.axes[0].get_lines()[0].get_xdata())) == 8 * MOST_CHUNKS
