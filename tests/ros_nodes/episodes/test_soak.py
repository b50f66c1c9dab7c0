from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ros_nodes.soak import Sample, growth, memory_of_children


def test_growth_is_the_slope_after_memory_has_settled() -> None:
    settling = [Sample(10.0 * i, {"policy_node": 50.0 * i}) for i in range(25)]
    settled = [Sample(10.0 * i, {"policy_node": 300.0 + i / 36}) for i in range(25, 100)]
    assert growth([*settling, *settled], "policy_node") == pytest.approx(10.0)


def test_growth_of_a_process_that_was_not_seen_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="policy_node was seen 0 times"):
        growth([Sample(float(i), {}) for i in range(9)], "policy_node")


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


def test_a_short_soak_reports_memory_latency_and_misses(graph: Any, checkpoint: Path, tmp_path: Path) -> None:
    output = graph.run(
        *(sys.executable, "-m", "ros_nodes.soak", "--minutes", "0.5", "--sample-seconds", "1"),
        *("--output-dir", str(tmp_path / "out")),
        *(f"checkpoint:={checkpoint}", "steps:=2", "max_steps:=20", "real_time_factor:=2.0"),
        timeout=180,
    )
    report = json.loads((tmp_path / "out" / "soak.json").read_text())
    assert report["episodes"] >= 2
    assert report["failures"] == {}
    assert report["memory"].keys() == {"policy_node", "pusht_simulator_node", "episode_runner"}
    assert all(used["end_mib"] > 10 for used in report["memory"].values())
    assert int(report["diagnostics"]["chunks"]) > 2
    assert (tmp_path / "out" / "soak.md").read_text().strip() == output.strip()
    assert "deadline misses" in output
