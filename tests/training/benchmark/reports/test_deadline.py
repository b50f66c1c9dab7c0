from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from policy import DiffusionPolicy
from training.benchmark.reports.deadline import Calls, busy_processes, main, summarise


def calls(ms: list[float], depth: list[int]) -> Calls:
    return Calls(np.array(ms), np.array(depth), np.array(depth) < 4)


def test_late_calls_are_counted_from_the_deadline_and_an_iteration_beyond_it() -> None:
    quiet = calls([20.0] * 3, [4] * 3)
    busy = calls([40.0, 40.0, 40.0, 41.0, 49.9, 50.1], [4, 4, 4, 4, 3, 3])
    report = summarise(quiet, busy, 40.0, competitors=2)
    assert report.busy_iteration_ms == pytest.approx((10.0 + 10.25) / 2)
    assert (report.late, report.late_by_more_than_an_iteration, report.cut) == (3, 0, 2)
    later = calls([40.0, 40.0, 40.0, 41.0, 49.9, 50.2], [4, 4, 4, 4, 3, 3])
    assert summarise(quiet, later, 40.0, competitors=2).late_by_more_than_an_iteration == 1


def test_the_command_measures_and_writes_its_report(
    policy_with_covariance: DiffusionPolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "policy.safetensors"
    policy_with_covariance.save(checkpoint)
    sizes = ["--calls", "7", "--quiet-calls", "3", "--steps", "4", "--competitors", "1"]
    output = ["--output-dir", str(tmp_path / "out")]
    assert main(["--checkpoint", str(checkpoint), "--engine", "eager", *sizes, *output]) == 0
    written = json.loads((tmp_path / "out" / "deadline.json").read_text())
    assert (written["calls"], written["competitors"]) == (7, 1)
    assert written["deadline_ms"] == pytest.approx(2 * written["quiet_median_ms"])
    assert 2 <= written["mean_depth"] <= 4
    assert written["late_by_more_than_an_iteration"] <= written["late"] <= 7
    page = (tmp_path / "out" / "deadline.md").read_text()
    assert f"| late | {written['late']} |" in page
    assert page.split("\n")[2] in capsys.readouterr().out


def test_competitors_end_with_the_measurement() -> None:
    with busy_processes(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.poll() is not None for process in processes)


def test_competitors_do_not_have_the_priority_of_the_policy() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    # As if this process had taken 3 more than it has: they give back as much, which every user may.
    with busy_processes(1, nice=-3) as (process,):
        for _ in range(500):
            if (found := os.getpriority(os.PRIO_PROCESS, process.pid)) != own:
                break
            time.sleep(0.01)
        assert (found, process.poll()) == (min(own + 3, 19), None)


def test_a_missing_checkpoint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", "nowhere.safetensors"]) == 1
    assert capsys.readouterr().err == "error: nowhere.safetensors: no such checkpoint file\n"
