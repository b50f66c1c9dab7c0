from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from policy import DiffusionPolicy
from policy.checkpoint import file_sha256
from training.benchmark.run import main


@pytest.fixture
def arguments(benchmark_arguments: list[str]) -> list[str]:
    small = ["episodes=1", "noise_seeds=[0,1]", "threads=[1]", "calls=2", "engine=eager"]
    return [*benchmark_arguments, "report=rivals", *(f"rivals.{option}" for option in small)]


def test_report_compares_samplers_and_policies_in_the_same_episodes(
    arguments: list[str], policy: DiffusionPolicy, pcm_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "mip").mkdir()
    replace(policy, objective="mip").save(tmp_path / "mip" / "policy.safetensors")
    samplers = "['solver=ddim steps=3','solver=unipc steps=2','solver=dpmpp_2m steps=3 partial.steps=1']"
    others = f"'checkpoint={tmp_path}/mip/policy.safetensors','method=pcm pcm={pcm_path} stop.iterations=1'"
    more = [f"rivals.samplers={samplers}", f"rivals.others=[{others}]"]
    assert main([*arguments, *more]) == 0
    with open(tmp_path / "out" / "rivals.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["policy"], row["sampler"]) for row in rows] == [
        ("policy", "sequential, ddim, T = 3"),
        ("policy", "sequential, unipc, T = 2"),
        ("policy", "sequential, dpmpp_2m, T = 3 (partial.steps=1)"),
        ("mip/policy", "sequential, mip, T = 2"),
        (
            "policy + adapters",
            "pcm, ddim, T = 5 (stop.iterations=1, picard.jacobian=drift, picard.start=fresh, pcm.space=parameter)",
        ),
    ]
    first, unipc, partial, mip, pcm = (
        {name: float(row[name] or 0) for name in row if name not in ("policy", "family", "sampler")}
        for row in rows
    )
    assert (first["depth"], unipc["depth"], mip["depth"]) == (3, 2, 2)
    assert 1 < partial["depth"] == partial["network_evaluations"] < 1.2  # the first chunk is not partial
    assert pcm["depth"] == 1
    for row in (unipc, partial, mip, pcm):
        assert row["gain_300"] == pytest.approx(row["reward_300"] - first["reward_300"])
        assert 0 <= row["reward_200"] <= row["reward_300"] <= 1
    for row in (first, unipc, partial, mip, pcm):
        assert row["ms_1"] > 0
        assert 0 <= row["success_200"] <= row["success_300"] <= 1
    assert (tmp_path / "out" / "rivals.png").exists()
    assert f'"pcm": "{file_sha256(pcm_path)}"' in (tmp_path / "out" / "rivals.md").read_text()


@pytest.mark.parametrize(
    ("samplers", "message"),
    [
        ("[]", "rivals.samplers must name at least the sampler that the others are compared with"),
        ("['steps=-1']", "rivals.samplers 'steps=-1': sampler.steps must be in 0 … 1000, got -1"),
        ("['method=pcm']", "rivals.samplers 'method=pcm': sampler.method=pcm needs pcm="),
    ],
)
def test_samplers_that_there_are_not_are_refused(
    arguments: list[str], refusal: Callable[..., str], samplers: str, message: str
) -> None:
    assert message in refusal(*arguments, f"rivals.samplers={samplers}")
