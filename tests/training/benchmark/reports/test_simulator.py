from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from training.benchmark.reports.simulator import (
    GYM_PUSHT,
    Simulator,
    compare,
    main,
    measure,
    prepare_gym_pusht,
)

OURS = (sys.executable, "-m", "training.benchmark.reports.simulator")


def test_measuring_drives_the_environment_and_names_the_engine() -> None:
    rate = measure("pusht_env", steps=20)

    assert rate.steps_per_second > 0
    assert rate.pymunk == metadata.version("pymunk")


def test_comparison_reports_both_and_their_ratio() -> None:
    table = compare(
        Simulator("first", "pusht_env", OURS), Simulator("second", "pusht_env", OURS), rounds=1, steps=20
    )

    first, second = (float(rate) for rate in re.findall(r"^\| \w+ \| [\d.]+ \| (\d+) ", table, re.MULTILINE))
    ratio = re.search(r"^first / second: ([\d.]+) ", table, re.MULTILINE)
    assert ratio is not None
    assert float(ratio[1]) == pytest.approx(first / second, abs=0.02)


def test_a_simulator_that_cannot_be_measured_is_named() -> None:
    missing = Simulator("missing", "no_such_module", OURS)

    with pytest.raises(RuntimeError, match=r"measuring missing failed with status 1: .*no_such_module"):
        compare(missing, missing, rounds=1, steps=1)


def test_a_complete_environment_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "installed.txt").write_text(GYM_PUSHT)

    python = prepare_gym_pusht(tmp_path)

    assert tmp_path in python.parents
    assert [entry.name for entry in tmp_path.iterdir()] == ["installed.txt"]


def test_an_environment_that_cannot_be_made_is_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    occupied = tmp_path / "a_file"
    occupied.write_text("not a directory")

    assert main(["--venv", str(occupied)]) == 1

    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert "a_file" in message
    assert occupied.read_text() == "not a directory"


def test_counts_must_be_positive(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])

    assert "--rounds: must be at least 1, got 0" in capsys.readouterr().err
