from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest

from policy import DiffusionPolicy
from training.benchmark.reports.deadline import Calls, busy_processes, summarise
from training.benchmark.run import main


def calls(ms: list[float], depth: list[int]) -> Calls:
    return Calls(np.array(ms), np.array(depth), np.array(depth) < 4)


def test_late_calls_are_counted_from_the_deadline_and_an_iteration_beyond_it() -> None:
    quiet = calls([20.0] * 3, [4] * 3)
    busy = calls([40.0, 40.0, 40.0, 41.0, 49.9, 50.1], [4, 4, 4, 4, 3, 3])
    report = summarise(quiet, busy, 40.0, competitors=2)
    assert report["busy_iteration_ms"] == pytest.approx((10.0 + 10.25) / 2)
    assert (report["late"], report["late_by_more_than_an_iteration"], report["cut"]) == (3, 0, 2)
    later = calls([40.0, 40.0, 40.0, 41.0, 49.9, 50.2], [4, 4, 4, 4, 3, 3])
    assert summarise(quiet, later, 40.0, competitors=2)["late_by_more_than_an_iteration"] == 1


@pytest.mark.parametrize("demonstrated", [True, False])
def test_the_report_is_measured_and_written(
    benchmark_arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], demonstrated: bool
) -> None:
    if not demonstrated:
        benchmark_arguments = [each for each in benchmark_arguments if "demonstrations=" not in each]
    options = ["engine=eager", "calls=7", "quiet_calls=3", "steps=4", "competitors=1"]
    sections = [f"deadline.{option}" for option in options]
    assert main([*benchmark_arguments, "report=deadline", *sections]) == 0
    (written,) = pandas.read_csv(tmp_path / "out" / "deadline.csv").to_dict("records")
    assert (written["calls"], written["competitors"]) == (7, 1)
    assert written["deadline_ms"] == pytest.approx(2 * written["quiet_median_ms"])
    assert 2 <= written["mean_depth"] <= 4
    assert written["late_by_more_than_an_iteration"] <= written["late"] <= 7
    page = (tmp_path / "out" / "deadline.md").read_text()
    late = re.search(r"^\| late +\| +(\d+) \|$", page, re.MULTILINE)
    assert late is not None
    assert int(late[1]) == written["late"]
    assert late[0] in capsys.readouterr().out
    assert "checkpoint_sha256" in page


def test_a_policy_of_another_task_needs_demonstrations(
    policy_with_covariance: DiffusionPolicy, refusal: Callable[..., str], tmp_path: Path
) -> None:
    other = replace(policy_with_covariance, task=replace(policy_with_covariance.task, rate=30.0))
    other.save(tmp_path / "other.safetensors")
    message = refusal(
        "report=deadline", f"checkpoint={tmp_path}/other.safetensors", f"output_dir={tmp_path}/out"
    )
    assert message.startswith("error: demonstrations=… is required for a policy of another")
    assert "rate" in message


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


def test_a_missing_checkpoint_is_one_line(refusal: Callable[..., str]) -> None:
    message = refusal("report=deadline", "checkpoint=nowhere.safetensors")
    assert message == "error: nowhere.safetensors: no such checkpoint file"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("deadline.calls=0", "deadline.calls must be at least 1, got 0"),
        ("deadline.threads=0", "deadline.threads must be at least 1, got 0"),
        ("deadline.nice=1", "deadline.nice must be at most 0, got 1"),
        ("deadline.engine=steam", "deadline.engine must be one of auto, "),
    ],
)
def test_impossible_values_are_refused(option: str, message: str, refusal: Callable[..., str]) -> None:
    assert message in refusal("report=deadline", option)
