from __future__ import annotations

import copy
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import pytest

from policy import DiffusionPolicy
from policy.pcm import load_pcm, save_pcm
from training.benchmark.run import main


@pytest.fixture
def arguments(benchmark_arguments: list[str]) -> list[str]:
    small = [
        "steps=[3]",
        "depths=[1]",
        "episodes=1",
        "noise_seeds=[0]",
        "threads=[1]",
        "calls=2",
        "engine=eager",
    ]
    return [*benchmark_arguments, "report=warm_rewards", *(f"warm_rewards.{option}" for option in small)]


@pytest.fixture
def warm_pcm(policy: DiffusionPolicy, pcm_path: Path) -> Path:
    """The PCM as if it had been trained for T = 3 from warm starts."""
    pcm = load_pcm(pcm_path, copy.deepcopy(policy.network))
    path = pcm_path.with_name("warm.safetensors")
    warm = replace(
        pcm,
        solver="dpmpp_2m",
        steps=3,
        jacobian="preconditioned",
        start="gaussian",
        iterations=1,
        warm_start="actions",
        warm_iterations=1,
    )
    save_pcm(path, warm)
    return path


def test_report_says_depth_evaluations_and_milliseconds_beside_rewards(
    arguments: list[str], warm_pcm: Path, tmp_path: Path, squeeze: Callable[[str], str]
) -> None:
    assert main([*arguments, f"pcm=[{warm_pcm}]"]) == 0
    with open(tmp_path / "out" / "warm_rewards.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["sequential", "picard", "pcm"]
    assert [row["depth"] for row in rows] == ["3", "1", "1"]
    assert {row["first_depth"] for row in rows} == {"3"}
    # At depth 1 a warm start evaluates all states at once.
    assert {row["network_evaluations"] for row in rows} == {"3"}
    assert rows[0]["gain_200"] == ""
    for row in rows[1:]:
        gain = float(row["reward_200"]) - float(rows[0]["reward_200"])
        assert float(row["gain_200"]) == pytest.approx(gain)
    for row in rows:
        assert 0 < float(row["ms_1"]) <= float(row["ms_1_p99"])
        assert float(row["jump_px"]) > 0
    page = squeeze((tmp_path / "out" / "warm_rewards.md").read_text())
    assert "| sampler | T | depth | first chunk | evaluations | ms, 1 thread | reward, 200 |" in page
    assert imageio.imread(tmp_path / "out" / "warm_rewards.png").std() > 5  # not blank


def test_a_pcm_that_does_not_fit_is_named(
    arguments: list[str], pcm_path: Path, warm_pcm: Path, refusal: Callable[..., str]
) -> None:
    alone = "adapters.safetensors was trained from cold starts alone; this report is of warm ones"
    assert alone in refusal(*arguments, f"pcm=[{pcm_path}]")
    other = refusal(*arguments, f"pcm=[{warm_pcm}]", "warm_rewards.steps=[4]")
    assert (
        "warm.safetensors was trained for dpmpp_2m with T = 3; this report is of dpmpp_2m with T among 4"
        in other
    )
