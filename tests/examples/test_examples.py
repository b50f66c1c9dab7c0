"""Every example runs as its first lines say, from the root of the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_example(name: str, *arguments: str) -> str:
    completed = subprocess.run(
        [sys.executable, f"examples/{name}", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_the_toy_draws_its_iterates(tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "toy.png"

    assert str(picture) in run_example("picard_toy.py", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_own_solver_has_one_answer_by_both_methods() -> None:
    errors = [float(error) for error in re.findall(r"error (\S+)", run_example("own_solver.py"))]

    assert len(errors) == 10
    assert errors[0] > 0.1
    assert errors[-1] < 1e-5


def test_the_policy_in_a_loop_pushes_the_block_onto_its_goal() -> None:
    reward = re.search(r"largest reward (\S+)", run_example("policy_loop.py"))

    assert reward is not None
    assert float(reward[1]) > 0.5
