from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy
from training.benchmark.reports import profile_floor
from training.benchmark.reports.profile_bench import Bench
from training.benchmark.reports.profile_floor import Floor, measure_floor
from training.benchmark.run import main

COLUMNS = (
    "engine,device,model,sampler,iterations,steps,batch,ms_p50,ms_p99,error_p95,reward,network_evaluations,"
    "speedup_vs_ddim50,times_floor"
)


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_floor, "MATRIX_SIZE", 64)
    monkeypatch.setattr(profile_floor, "CHANNELS", 8)


@pytest.fixture
def arguments(benchmark_arguments: list[str], pcm_path: Path) -> list[str]:
    return [
        *benchmark_arguments,
        "report=profile",
        f"pcm=[{pcm_path}]",
        "device=cpu",
        "profile.engines=[eager]",
        "profile.calls=6",
        "profile.ddim_steps=[2,5]",
        "profile.dpmpp_2m_steps=[3]",
        "profile.picard_steps=[4]",
        "profile.picard_depths=[3,2]",
    ]


def read_rows(tmp_path: Path) -> list[dict[str, str]]:
    with open(tmp_path / "out" / "profile.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_report_has_a_row_for_every_sampler_and_engine(arguments: list[str], tmp_path: Path) -> None:
    rewards = tmp_path / "rewards.csv"
    rewards.write_text(
        'sampler,steps,depth,reward_200\n"sequential, ddim",2,2,0.75\n"sequential, ddim",5,5,\n'
    )
    assert main([*arguments, f"profile.rewards={rewards}"]) == 0
    rows = read_rows(tmp_path)
    assert set(COLUMNS.split(",")) <= set(rows[0])
    picard, warm = (
        "picard, ddim, preconditioned, gaussian",
        "picard, ddim, preconditioned, warm start by actions",
    )
    pcm = "pcm, ddim, adapters, {} space, s = 1"
    found = {(row["engine"], row["model"], row["sampler"], row["iterations"], row["steps"]) for row in rows}
    assert found == {
        ("plain", "policy", "sequential, ddim", "", "5"),
        ("eager", "policy", "sequential, ddim", "", "5"),
        ("eager", "policy", "sequential, ddim", "", "2"),
        ("eager", "policy", "sequential, dpmpp_2m", "", "3"),
        ("eager", "policy", picard, "2", "4"),
        ("eager", "policy", picard, "1", "4"),
        ("eager", "policy", warm, "2", "4"),
        ("eager", "adapters", pcm.format("parameter"), "3", "5"),
        ("eager", "adapters", pcm.format("parameter"), "2", "5"),
        ("eager", "adapters", pcm.format("feature"), "3", "5"),
        ("eager", "adapters", pcm.format("feature"), "2", "5"),
    }
    assert len(rows) == len(found)
    by_name = {(row["engine"], row["sampler"], row["iterations"], row["steps"]): row for row in rows}
    for row in rows:
        assert 0 < float(row["ms_p50"]) <= float(row["ms_p99"])
        assert float(row["times_floor"]) > 1
        assert bool(row["error_p95"]) == (row["sampler"] != warm)
        assert bool(row["reward"]) == (row["steps"] == "2")
    plain, eager = (by_name[engine, "sequential, ddim", "", "5"] for engine in ("plain", "eager"))
    assert float(plain["speedup_vs_ddim50"]) == 1
    assert float(plain["error_p95"]) < 1e-5
    assert float(eager["error_p95"]) < 1e-5 < float(by_name["eager", picard, "1", "4"]["error_p95"])
    # One for the start, then all states but the first, and all but the first two.
    assert by_name["eager", picard, "2", "4"]["network_evaluations"] == "6.0"
    assert by_name["eager", "sequential, ddim", "", "2"]["reward"] == "0.75"

    page = (tmp_path / "out" / "profile.md").read_text()
    for expected in ("GFLOP/s", "in network", "pcm, ddim, adapters, parameter space, s = 1", "libraries"):
        assert expected in page
    assert imageio.imread(tmp_path / "out" / "profile.png").std() > 5


def test_after_an_interruption_nothing_is_measured_twice(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []
    measure = Bench.turn

    def interrupted(self: Bench, turn: int) -> dict:
        if turn == 1 and turns == [0]:
            turns.append(-1)
            raise KeyboardInterrupt
        turns.append(turn)
        return measure(self, turn)

    monkeypatch.setattr(Bench, "turn", interrupted)
    assert main(arguments) == 130
    assert main(arguments) == 0
    assert turns == [0, -1, 1]
    assert len(read_rows(tmp_path)) == 11


def test_floor_is_arithmetic_or_reading() -> None:
    floor = Floor(flops=2e6, weight_bytes=3e6, flops_per_second=1e9, bytes_per_second=1e9)
    assert floor.milliseconds([1]) == pytest.approx(3)
    assert floor.milliseconds([10, 1]) == pytest.approx(20 + 3)


def test_floor_counts_what_is_left_once_film_is_hoisted(policy: DiffusionPolicy) -> None:
    counted: list[int] = []

    def count(layer: torch.nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        weight = layer.get_parameter("weight")
        positions = output.shape[-1] if isinstance(layer, torch.nn.Conv1d) else output.shape[-1] // 2
        counted.append(2 * weight.numel() * positions)

    for layer in policy.network.modules():
        if isinstance(layer, (torch.nn.Conv1d, torch.nn.ConvTranspose1d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        policy.network(torch.zeros(1, 16, 2), torch.zeros(1), torch.zeros(1, 40))
    expected = sum(counted)
    floor = measure_floor(policy, threads=1)
    assert floor.flops == expected
    modules = policy.network.named_parameters()
    assert floor.weight_bytes == 4 * sum(
        p.numel() for n, p in modules if "film" not in n and "timestep" not in n
    )
    assert floor.flops_per_second > 0
    assert floor.bytes_per_second > 0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("profile.engines=[tensorrt]", "profile.engines must be among eager, compile, .*, got tensorrt"),
        ("profile.calls=0", "profile.calls must be at least 1, got 0"),
        ("profile.ddim_steps=[]", "profile.ddim_steps must not be empty"),
        ("profile.rewards=nowhere.csv", "nowhere.csv"),
    ],
)
def test_a_bad_argument_is_named_in_one_line(
    arguments: list[str], argument: str, message: str, refusal: Callable[..., str]
) -> None:
    assert re.search(message, refusal(*arguments, argument))


def test_a_file_that_is_no_table_of_rewards_is_refused(
    arguments: list[str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "other.csv").write_text("sampler,steps\n")
    message = refusal(*arguments, f"profile.rewards={tmp_path}/other.csv")
    assert "columns depth, reward_200 are missing" in message
