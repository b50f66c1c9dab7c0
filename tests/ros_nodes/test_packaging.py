"""The tree as a colcon package, built into a path with spaces."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("packaging")  # one build for all


@pytest.fixture(scope="module")
def workspace(ros: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("colcon") is None:
        pytest.skip("needs colcon (make ros-test brings it)")
    workspace = tmp_path_factory.mktemp("a workspace")
    command = ["colcon", "build", "--base-paths", str(REPOSITORY), "--packages-select", "pcm_policy"]
    built = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return workspace


def sourced(graph: Any, workspace: Path, command: str) -> str:
    """The output of a shell command in the sourced workspace."""
    return str(graph.run("bash", "-c", f"source '{workspace}/install/setup.bash' && {command}"))


def test_ros2_run_knows_the_executables(graph: Any, workspace: Path) -> None:
    executables = sourced(graph, workspace, "ros2 pkg executables pcm_policy").splitlines()
    for name in ("episode_runner", "policy_node", "pusht_simulator_node", "simulator_node"):
        assert f"pcm_policy {name}" in executables


def test_an_installed_executable_runs_with_the_python_of_the_environment(graph: Any, workspace: Path) -> None:
    command = "! ros2 run pcm_policy pusht_simulator_node --ros-args -p mode:=turbo"
    assert "error: parameter mode must be realtime or lockstep" in sourced(graph, workspace, command)


def test_launch_files_configuration_and_checkpoints_are_in_the_share_folder(
    graph: Any, workspace: Path
) -> None:
    share = Path(sourced(graph, workspace, "ros2 pkg prefix --share pcm_policy").strip())
    for folder in ("launch", "config", "checkpoints"):
        installed = sorted(path.name for path in (share / folder).iterdir())
        assert installed == sorted(path.name for path in (REPOSITORY / folder).iterdir() if path.is_file())
        assert installed
    arguments = sourced(graph, workspace, "ros2 launch pcm_policy pusht.launch.py --show-args")
    assert str(share / "checkpoints" / "pusht_mirror.safetensors") in arguments
