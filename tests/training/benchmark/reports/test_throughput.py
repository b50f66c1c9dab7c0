from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v2 as imageio
import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from training.benchmark.reports.throughput import Bench, Contestant
from training.benchmark.run import main


@pytest.fixture
def arguments(benchmark_arguments: list[str]) -> list[str]:
    return [
        *benchmark_arguments,
        "report=throughput",
        "device=cpu",
        "throughput.engines=[plain,openvino]",
        "throughput.batches=[1,3]",
        "throughput.threads=[1]",
        "throughput.steps=1",
        "throughput.solver=ddim",
        "throughput.calls=6",
    ]


def test_a_row_for_each_engine_and_batch_which_is_resumed(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    measure = Bench.turn

    def interrupted(self: Bench, turn: int, calls: int) -> dict:
        if turn == 1 and turns == [0]:
            turns.append(-1)
            raise KeyboardInterrupt
        turns.append(turn)
        return measure(self, turn, calls)

    monkeypatch.setattr(Bench, "turn", interrupted)
    assert main(arguments) == 130
    assert main(arguments) == 0
    assert turns == [0, -1, 1, 2, 3, 4]

    with open(tmp_path / "out" / "throughput.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["engine"], row["batch"]) for row in rows] == [
        (engine, batch) for engine in ("plain", "openvino") for batch in ("1", "3")
    ]
    for row in rows:
        assert 0 < float(row["ms_p50"]) <= float(row["ms_p99"])
        assert float(row["chunks_per_second"]) == pytest.approx(
            1000 * int(row["batch"]) / float(row["ms_p50"])
        )
        assert int(row["robots"]) == int(float(row["chunks_per_second"]) / 1.25)  # 8 actions at 10 Hz
        assert float(row["difference"]) < 1e-4
        assert (float(row["times_plain"]) == 1) == (row["engine"] == "plain")
    assert "robots" in (tmp_path / "out" / "throughput.md").read_text()
    assert imageio.imread(tmp_path / "out" / "throughput.png").std() > 5


def test_a_file_gives_the_plain_answers_compiled_for_one_batch_and_for_any(
    policy_with_covariance: DiffusionPolicy, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    least = replace(policy_with_covariance.config, down_dims=(4,), step_embed_dim=4, n_groups=2)
    network = least.build_network(policy_with_covariance.task).eval()
    policy = replace(policy_with_covariance, network=network, config=least)
    contestants = [
        Contestant(engine, 1, batch)
        for engine in ("openvino_file", "openvino_file_fixed")
        for batch in (1, 3)
    ]
    sampler = SamplerConfig("sequential", "ddim", 1)
    bench = Bench(policy.with_sampler(sampler), contestants, seed=0, folder=tmp_path)
    assert max(bench.differences()["difference"]) < 1e-4
    with pytest.raises(ValueError, match=r"batch size 1, .*policy\.xml was opened for 3"):
        bench.server(contestants[-1]).predict(bench.observations[:1])


def test_large_batches_are_called_less_often() -> None:
    calls = [Contestant("plain", 1, batch).calls_in_turn(100) for batch in (1, 4, 16, 256)]
    assert calls == [20, 5, 2, 2]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "throughput.engines=[tensorrt]",
            "throughput.engines must be among plain, openvino, .* got tensorrt",
        ),
        ("throughput.batches=[1,1]", "throughput.batches must not repeat a number"),
        ("throughput.turns=6", "throughput.turns must be at most 5, got 6"),
        ("throughput.threads=[0]", "throughput.threads must be at least 1"),
        ("throughput.solver=rk4", "rk4"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    arguments: list[str], argument: str, message: str, refusal: Callable[..., str]
) -> None:
    assert re.search(message, refusal(*arguments, argument))
