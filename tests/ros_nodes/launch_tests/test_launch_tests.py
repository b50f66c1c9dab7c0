"""Runs the launch tests, each file in a process of its own, as `launch_test FILE` does."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
LAUNCH_TESTS = sorted(FOLDER.glob("*.test.py"))
MINUTES = 10

CONTROLLERS = ("controller_manager", "joint_trajectory_controller")
NEEDS = {
    "controller_conformity.test.py": CONTROLLERS,
    "joint_trajectory_controller.test.py": CONTROLLERS,
}
"""ROS packages that tests need and a ROS base does not have."""


def missing_packages(file: Path) -> list[str]:
    from ament_index_python.packages import get_packages_with_prefixes

    return [package for package in NEEDS.get(file.name, ()) if package not in get_packages_with_prefixes()]


@pytest.mark.parametrize("file", LAUNCH_TESTS, ids=lambda file: file.name.removesuffix(".test.py"))
def test_launch(ros: None, file: Path, checkpoints: Path, tmp_path: Path) -> None:
    if missing := missing_packages(file):
        pytest.skip(f"{file.name} needs ROS packages that are not there: {', '.join(missing)}")
    from ros_graph import free_domain
    from ros_processes import environment

    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "launch_testing.launch_test", "--junit-xml", str(report), str(file)]
    environment_of_test = environment(free_domain(), tmp_path)
    environment_of_test["PYTHONPATH"] = f"{FOLDER}:{FOLDER.parent}:{environment_of_test['PYTHONPATH']}"
    with open(tmp_path / "output.txt", "wb") as output:
        run = subprocess.run(
            [*command, f"checkpoint:={checkpoints / 'tiny.safetensors'}", f"folder:={tmp_path}"],
            env=environment_of_test,
            stdout=output,
            stderr=output,
            timeout=60 * MINUTES,
            check=False,
        )
    printed = (tmp_path / "output.txt").read_text(errors="replace")
    cases = [*ElementTree.parse(report).iter("testcase")] if report.exists() else []
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    reasons = [f"{case.get('name')}: {problem.get('message')}\n" for case in failed for problem in case]
    assert run.returncode == 0, f"{' '.join(command)}\n{''.join(reasons)}\n{printed[-6000:]}"
    assert not failed
    assert len(cases) >= 2, "at least one test of the running processes, and one of how they ended"
