"""`pcm-results`: all tables by one commit and with one checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from policy import DiffusionPolicy
from training.benchmark.config import BenchmarkConfig
from training.benchmark.results import ResultsConfig, main, measure_results
from training.command import load_config

PART = [
    "report=rivals",
    "engine=plain",
    "rivals.samplers=['solver=ddim steps=2']",
    "rivals.episodes=1",
    "rivals.noise_seeds=[0]",
    "rivals.threads=[]",
]


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch):
    """Make this another commit."""

    def be(code: str) -> None:
        for module in ("results", "row_cache", "report"):
            monkeypatch.setattr(f"training.benchmark.{module}.code_version", lambda: code)

    be("abc")
    return be


@pytest.fixture
def config(
    policy_with_covariance: DiffusionPolicy, small_demonstrations: Path, tmp_path: Path
) -> ResultsConfig:
    policy_with_covariance.save(tmp_path / "policy.safetensors")
    return ResultsConfig(
        output_dir=str(tmp_path / "out"),
        checkpoint=str(tmp_path / "policy.safetensors"),
        demonstrations=str(small_demonstrations),
        parts={"one": PART, "two": [*PART, "rivals.first_seed=7"]},
        minutes={"two": 3.0},
    )


def test_parts_are_measured_once_and_say_how_long_they_took(
    config: ResultsConfig, commit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    measure_results(replace(config, plan=True))
    assert not out.exists()
    measure_results(replace(config, only=["one"]))
    (page,), (row,) = (list((out / "one").glob(name)) for name in ("*.md", "*_rows/*.json"))
    written = page.stat().st_mtime_ns, row.stat().st_mtime_ns
    command = json.loads(page.read_text().rpartition("```json\n")[2].rpartition("```")[0])["command"]
    assert command.startswith("pcm-benchmark report=rivals ")
    capsys.readouterr()
    measure_results(replace(config, plan=True))
    text = capsys.readouterr().out
    assert "| one | rivals | 1 |" in text
    assert "| two | rivals | 0 | 3.0 | expected" in text
    measure_results(config)
    assert (page.stat().st_mtime_ns, row.stat().st_mtime_ns) == written
    assert (out / "two" / "rivals.md").exists()
    taken = json.loads(row.read_text())["seconds"]
    assert 0 < taken < 1000
    assert f"| one | rivals | 1 | {taken / 60:.1f} | measured |" in (out / "results.md").read_text()


def test_a_table_has_one_commit_and_one_checkpoint(
    config: ResultsConfig, commit, policy_with_covariance: DiffusionPolicy, tmp_path: Path
) -> None:
    commit("abc+changes")
    with pytest.raises(ValueError, match="the checkout has changes"):
        measure_results(config)
    commit("abc")
    measure_results(replace(config, only=["one"]))
    commit("def")
    with pytest.raises(ValueError, match=r"\.json was measured by commit abc, this is def: choose another"):
        measure_results(config)
    for row in (tmp_path / "out" / "one" / "rivals_rows").iterdir():
        row.unlink()
    with pytest.raises(ValueError, match=r"rivals\.md was measured by commit abc, this is def"):
        measure_results(config)
    commit("abc")
    replace(policy_with_covariance, provenance={"seed": 1}).save(config.checkpoint)
    with pytest.raises(ValueError, match=r"rivals\.md was measured with another checkpoint"):
        measure_results(config)


def test_every_part_is_a_report_that_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(
        "results",
        ResultsConfig,
        ["demonstrations=a.zarr", "rivals=['checkpoint=b.safetensors','solver=ddim steps=3']"],
    )
    for name, arguments in config.parts.items():
        made = load_config("benchmark", BenchmarkConfig, [*arguments, f"output_dir=out/{name}"])
        assert made.report in name or name.startswith(made.report)
        if name == "rivals":
            assert made.rivals.others == ["checkpoint=b.safetensors", "solver=ddim steps=3"]
    assert main(["demonstrations=a.zarr", "only=[rewards,fame]"]) == 1
    assert "error: only must be among rewards, rivals, " in capsys.readouterr().err
