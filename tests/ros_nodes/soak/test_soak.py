from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ros_nodes.soak.run import memory_of_children


def test_memory_is_that_of_the_children_by_executable() -> None:
    # bash stays the parent as long as it has something left to do.
    script = f"'{sys.executable}' -c 'held = bytearray(100 << 20); print(0, flush=True); input()' bin/policy_node; :"
    with subprocess.Popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bash:
        assert bash.stdout is not None
        bash.stdout.readline()
        memory = memory_of_children(bash.pid)
        bash.communicate("\n")
    assert list(memory) == ["policy_node"]
    assert 100 < memory["policy_node"] < 200


@pytest.mark.parametrize("length", [("--minutes", "0.3"), ("--episodes", "3")])
def test_a_short_soak_reports_what_it_saw(
    graph: Any, checkpoints: Path, tmp_path: Path, length: tuple[str, str]
) -> None:
    output = graph.run(
        *(sys.executable, "-m", "ros_nodes.soak", *length, "--sample-seconds", "1"),
        *("--output-dir", str(tmp_path / "out")),
        *(
            f"checkpoint:={checkpoints / 'tiny.safetensors'}",
            "engine:=eager",
            "solver:=ddim",
            "steps:=2",
            "max_steps:=20",
            "real_time_factor:=0.5",
        ),
        timeout=300,
    )
    report = json.loads((tmp_path / "out" / "soak.json").read_text())
    if length[0] == "--episodes":
        assert report["rewards"].keys() == {"100000", "100001", "100002"}
    assert report["episodes"] == len(report["rewards"]) >= 2
    assert report["failures"].keys() <= report["rewards"].keys()  # chunks may be too late on a busy machine
    assert report["memory"].keys() == {"policy_node", "pusht_simulator_node", "episode_runner"}
    assert all(used["end_mib"] > 10 for used in report["memory"].values())
    assert int(report["diagnostics"]["chunks"]) > 2
    assert report["smoothness"]["top_speed_px_per_s"]["mean"] > 10
    assert "| jerk of an episode, " in output
    assert report["services"]["all"]["count"] > 5
    assert 0 < report["services"]["all"]["p50_ms"] <= report["services"]["all"]["max_ms"]
    assert report["services"]["unanswered"] == 0
    assert (tmp_path / "out" / "soak.md").read_text().strip() == output.strip()
    assert output.startswith("# ")
    assert "in real time: sequential, ddim, T = 2\n" in output


def test_a_soak_whose_launch_ends_early_is_an_error(graph: Any, tmp_path: Path) -> None:
    soak = graph.start(
        *(sys.executable, "-m", "ros_nodes.soak", "--output-dir", str(tmp_path / "out")),
        "checkpoint:=nowhere.safetensors",
    )
    graph.spin_until(lambda: soak.poll() is not None, "the soak ends")
    assert soak.returncode == 1
    assert "error: the launch ended with 1" in graph.output(soak)
    assert "no such checkpoint file" in (tmp_path / "out" / "log.txt").read_text()
