from __future__ import annotations

import csv
from pathlib import Path

import imageio.v2 as imageio
import pytest

from policy.sampling.hand_over import HAND_OVERS
from training.benchmark.run import main


@pytest.fixture
def arguments(benchmark_arguments: list[str]) -> list[str]:
    return [
        *benchmark_arguments,
        "report=hand_over",
        "hand_over.fixed_ms=[400]",
        "hand_over.solver=ddim",
        "hand_over.steps=2",
        "hand_over.episodes=1",
        "hand_over.noise_seeds=[0]",
    ]


def test_report_compares_every_hand_over_in_the_same_episodes(arguments: list[str], tmp_path: Path) -> None:
    assert main(arguments) == 0
    with open(tmp_path / "out" / "hand_over.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["hand_over"] for row in rows] == list(HAND_OVERS)
    assert rows[0]["gain"] == ""
    for row in rows:
        assert 0 <= float(row["reward_200"]) <= float(row["reward_300"]) <= 1
        assert float(row["jump_mean"]) <= float(row["jump_p95"])
        assert float(row["top_speed"]) > 0
    for row in rows[1:]:
        gain = float(row["reward_200"]) - float(rows[0]["reward_200"])
        assert float(row["gain"]) == pytest.approx(gain)
    # What was sampled with the executed actions held does not leave them at the seam.
    assert float(rows[3]["jump_mean"]) < float(rows[0]["jump_mean"])
    assert imageio.imread(tmp_path / "out" / "hand_over.png").shape[0] > 100


def test_what_cannot_be_measured_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "hand_over.hand_overs=[guide,drop]"]) == 1
    assert "hand_over.hand_overs must be some of replace, carry, blend, inpaint, guide, got drop" in (
        capsys.readouterr().err
    )
    assert main([*arguments, "hand_over.fixed_ms=[1,1]"]) == 1
    assert "hand_over.fixed_ms must not repeat a number" in capsys.readouterr().err
