from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig, StopConfig
from training.benchmark.config import WarmStartConfig
from training.benchmark.reports.warm_start import STARTS, make_rows, measure_depths
from training.benchmark.run import main


@pytest.fixture
def arguments(benchmark_arguments: list[str]) -> list[str]:
    return [
        *benchmark_arguments,
        "report=warm_start",
        "warm_start.steps=[4,3]",
        "warm_start.episodes=2",
        "warm_start.max_steps=20",
    ]


def test_report_has_a_row_for_each_start(
    arguments: list[str], tmp_path: Path, squeeze: Callable[[str], str]
) -> None:
    assert main(arguments) == 0
    with open(tmp_path / "out" / "warm_start.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["steps"], row["noise"], row["start"]) for row in rows] == [
        (steps, noise, start)
        for steps in ("4", "3")
        for noise in ("drawn anew", "moved along")
        for start in STARTS
    ]
    for row in rows:
        assert row["chunks"] == "4"  # of three in each of two episodes, the first has no chunk before it
        assert 1 <= float(row["depth_mean"]) <= float(row["steps"])
    page = (tmp_path / "out" / "warm_start.md").read_text()
    assert "| noise | start | T | depth |" in squeeze(page)
    assert "checkpoint_sha256" in page
    assert imageio.imread(tmp_path / "out" / "warm_start.png").std() > 5  # not blank

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "warm_start_rows").iterdir()}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(times) == 4


@pytest.mark.parametrize("move_noise", [False, True])
def test_depth_is_that_of_the_first_answer_near_enough(
    policy_with_covariance: DiffusionPolicy, move_noise: bool
) -> None:
    limit = 0.2  # an untrained network's iterations approach the answer slowly
    options = WarmStartConfig(error=limit, episodes=1, max_steps=16, first_seed=5)
    measured = measure_depths(policy_with_covariance, options, steps=6, move_noise=move_noise)

    env = gymnasium.make("pusht_env/PushT-v0")
    observation, _ = env.reset(seed=5)
    history, generator = [observation, observation], torch.Generator().manual_seed(5)
    exact = policy_with_covariance.with_sampler(SamplerConfig("sequential", "ddim", 6))

    def newest() -> torch.Tensor:
        return torch.tensor(np.array([history[-2:]]), dtype=torch.float32)

    first = exact.predict(newest(), generator=generator)
    history += [env.step(action.double().numpy())[0] for action in first.chunk[0]]
    noise = torch.randn((1, 16, 2), generator=generator)
    if move_noise:
        noise = torch.cat((first.noise[:, 8:], noise[:, 8:]), 1)
    answer = exact.predict(newest(), noise=noise).actions
    for name, start in STARTS.items():
        errors: dict[str, dict[int, float]] = {"horizon": {}, "chunk": {}}
        for iterations in range(1, 7):
            sampled = policy_with_covariance.with_sampler(
                replace(start, steps=6, stop=StopConfig(iterations))
            )
            further = torch.Generator().manual_seed(0)
            prediction = sampled.predict(newest(), noise=noise, generator=further, previous=first)
            difference = sampled.normalizer.action.normalize(prediction.actions)
            difference -= sampled.normalizer.action.normalize(answer)
            errors["horizon"][prediction.depth] = difference.abs().max().item()
            errors["chunk"][prediction.depth] = difference[:, 1:9].abs().max().item()
        for part, found in errors.items():
            depth = measured["depths"][part][name][0]
            assert found[depth] < limit
            assert all(error >= limit for less, error in found.items() if less < depth)


def test_what_is_never_near_enough_takes_all_steps(policy_with_covariance: DiffusionPolicy) -> None:
    options = WarmStartConfig(error=1e-30, episodes=2, max_steps=16)
    measured = measure_depths(policy_with_covariance, options, steps=3, move_noise=True)
    for depths in measured["depths"].values():
        assert set(depths["warm"]) == {3}


def test_savings_are_of_the_mean_depth() -> None:
    depths = {"cold, fresh": [6, 10], "cold, gaussian": [3, 5], "warm": [2, 2]}
    chunk_depths = {**depths, "warm": [1, 1]}
    parts = {"horizon": depths, "chunk": chunk_depths}
    rows = make_rows(10, False, {"depths": parts, "max_rewards": [0.5, 1.0], "jumps": [3.0, 5.0]})
    assert [row["saved_of_fresh"] for row in rows] == [0, 0.5, 0.75]
    assert [row["saved_of_gaussian"] for row in rows] == [-1, 0, 0.5]
    assert [row["chunk_saved_of_gaussian"] for row in rows] == [-1, 0, 0.75]
    assert rows[2]["depth_mean"] == 2
    assert rows[2]["jump_px"] == 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("warm_start.steps=[]", "warm_start.steps must not be empty"),
        ("warm_start.error=0", "warm_start.error must be above 0, got 0"),
        ("warm_start.episodes=0", "warm_start.episodes must be at least 1, got 0"),
        ("warm_start.max_steps=8", "warm_start.max_steps must be above the 8 of a chunk, got 8"),
    ],
)
def test_impossible_values_are_refused(
    arguments: list[str], argument: str, message: str, refusal: Callable[..., str]
) -> None:
    assert message in refusal(*arguments, argument)
