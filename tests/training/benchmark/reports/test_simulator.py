from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pandas
import pytest

from training.benchmark.config import BenchmarkConfig, SimulatorConfig
from training.benchmark.reports import simulator
from training.benchmark.reports.simulator import (
    GYM_PUSHT,
    OURS,
    Simulator,
    compare,
    format_rates,
    prepare_gym_pusht,
)
from training.benchmark.reports.simulator_rate import measure


def test_measuring_drives_the_environment_and_names_the_engine() -> None:
    rate = measure("pusht_env", steps=20)

    assert float(rate["steps_per_second"]) > 0
    assert rate["pymunk"] == metadata.version("pymunk")


def test_comparison_reports_both_and_their_ratio() -> None:
    first, second = (replace(OURS, distribution=name) for name in ("first", "second"))
    table = format_rates(compare(first, second, rounds=1, steps=20))

    rates = re.findall(r"^\| (?:first|second) +\| [\d.]+ +\| +(\d+) ", table, re.MULTILINE)
    ratio = re.search(r"^first / second: ([\d.]+) ", table, re.MULTILINE)
    assert ratio is not None
    assert float(ratio[1]) == pytest.approx(float(rates[0]) / float(rates[1]), abs=0.02)


def test_ratio_is_the_median_of_the_rounds() -> None:
    rounds = [(100, 50), (90, 30), (40, 10)]
    rows = [
        {"simulator": name, "round": number, "steps_per_second": rate, "pymunk": "7"}
        for number, rates in enumerate(rounds)
        for name, rate in zip(("ours", "theirs"), rates, strict=True)
    ]
    assert "ours / theirs: 3.00 " in format_rates(pandas.DataFrame(rows))


def test_report_compares_with_a_simulator_of_another_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Stands for the interpreter of gym-pusht: all that the program may expect there is the environment's module.
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -I ] && [ -f "$2" ] && [ "$3 $4" = "gym_pusht 20" ] || exit 1\n'
        "echo a greeting\n"
        """echo '{"steps_per_second": 7.0, "pymunk": "6.1"}'\n"""
    )
    python.chmod(0o755)
    monkeypatch.setattr(simulator, "prepare_gym_pusht", lambda venv: python)
    options = SimulatorConfig(rounds=1, steps=20)
    output_dir = str(tmp_path / "out")
    config = BenchmarkConfig(report="simulator", checkpoint="none", output_dir=output_dir, simulator=options)
    simulator.report(config)
    page = (tmp_path / "out" / "simulator.md").read_text()
    assert re.search(rf"^\| {GYM_PUSHT} +\| 6\.1 +\| +7 \|", page, re.MULTILINE)
    assert "| pusht_env" in capsys.readouterr().out
    assert len(pandas.read_csv(tmp_path / "out" / "simulator.csv")) == 2


def test_a_simulator_that_cannot_be_measured_is_named() -> None:
    missing = Simulator("missing", "no_such_module", OURS.command)

    with pytest.raises(RuntimeError, match=r"measuring missing failed with status 1: .*no_such_module"):
        compare(missing, missing, rounds=1, steps=1)


def test_a_complete_environment_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "installed.txt").write_text(GYM_PUSHT)

    python = prepare_gym_pusht(tmp_path)

    assert tmp_path in python.parents
    assert [entry.name for entry in tmp_path.iterdir()] == ["installed.txt"]


def test_an_environment_that_cannot_be_made_is_an_error_in_one_line(
    tmp_path: Path, refusal: Callable[..., str]
) -> None:
    occupied = tmp_path / "a_file"
    occupied.write_text("not a directory")

    assert "a_file" in refusal("report=simulator", f"simulator.venv={occupied}", f"output_dir={tmp_path}/out")
    assert occupied.read_text() == "not a directory"


def test_counts_must_be_positive(refusal: Callable[..., str]) -> None:
    assert "simulator.rounds must be at least 1, got 0" in refusal("report=simulator", "simulator.rounds=0")
