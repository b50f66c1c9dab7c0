"""Who imports what: a robot needs neither a simulator nor a trainer, and what is imported is declared."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import policy

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("policy", "pusht_env", "ros_nodes", "training")
IMPORTED_AS = {"hydra-core": "hydra", "pillow": "PIL", "pytest-xdist": "xdist"}


@cache
def setup() -> dict[str, Any]:
    """The keywords of `setup()` in setup.py."""
    keywords: dict[str, Any] = {}
    setuptools = SimpleNamespace(setup=keywords.update, find_packages=lambda include: include)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "setuptools", setuptools)
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return keywords


def libraries(*extras: str) -> set[str]:
    """What can be imported after `pip install pcm_policy[extras]`."""
    requirements = [
        *setup()["install_requires"],
        *(r for extra in extras for r in setup()["extras_require"][extra]),
    ]
    names = [re.split(r"[\[<>=; ]", requirement)[0] for requirement in requirements]
    return {IMPORTED_AS.get(name, name) for name in names}


def ros_packages() -> set[str]:
    """What package.xml lets the nodes run with, as it is imported."""
    elements = ElementTree.parse(REPOSITORY / "package.xml").iter("exec_depend")
    return {str(element.text).removeprefix("python3-") for element in elements}


def modules(*rooms: str) -> list[str]:
    """All modules of packages, such as `policy.runtime`, and single modules."""
    paths = [REPOSITORY / room.replace(".", "/") for room in rooms]
    files = [
        file
        for path in paths
        for file in (path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")])
    ]
    return [
        ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        for file in files
    ]


def file_of(module: str) -> Path | None:
    path = REPOSITORY / module.replace(".", "/")
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


@cache
def imports(module: str) -> set[str]:
    """The modules that a module names in import statements, wherever they stand, and the packages around them."""
    file = file_of(module)
    assert file is not None, module
    return imports_of(file)


def imports_of(file: Path) -> set[str]:
    named = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            named |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    around = {name.rsplit(".", count)[0] for name in named for count in range(1, name.count(".") + 1)}
    return named | around


def closure(starts: list[str]) -> tuple[set[str], set[str]]:
    """The project's modules that are imported from some of them on, and the libraries that these import."""
    reached: set[str] = set()
    others: set[str] = set()
    waiting = list(starts)
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        for name in imports(module):
            if name.split(".")[0] not in PACKAGES:
                others.add(name.split(".")[0])
            elif file_of(name) is not None:
                waiting.append(name)
    return reached, others - sys.stdlib_module_names


def test_a_robot_needs_neither_simulator_nor_trainer() -> None:
    rooms = ("policy", "ros_nodes.policy_node", "ros_nodes.commands", "ros_nodes.recorder")
    reached, imported = closure(modules(*rooms))
    assert {name for name in reached if name.split(".")[0] in ("training", "pusht_env")} == set()
    assert imported <= libraries("camera") | ros_packages()  # which is asked for where a robot has one


@pytest.mark.parametrize(
    ("rooms", "extras"),
    [
        (["policy"], ["camera"]),
        (["pusht_env"], ["sim"]),
        (["ros_nodes.simulator.simulator_node"], ["sim"]),
        (["ros_nodes"], ["train", "camera"]),
        (["training.data", "training.evaluation", "training.pcm", "training.policy"], ["train", "camera"]),
        (["training.importing"], ["import"]),
        (["training"], ["reports", "import"]),
    ],
    ids=str,
)
def test_every_library_that_is_imported_is_installed_with_the_extra(
    rooms: list[str], extras: list[str]
) -> None:
    _, imported = closure(modules(*rooms))
    assert imported <= libraries(*extras) | ros_packages()


def test_the_policy_runs_where_only_its_own_libraries_are() -> None:
    others = sorted(libraries(*setup()["extras_require"]) - libraries())
    program = f"""
import sys
sys.modules.update(dict.fromkeys({others}))
sys.modules["yaml"] = None
import policy, policy.runtime
from policy.robot import fit, messages, robot_file
from ros_nodes.commands import trajectory_execution
policy.DiffusionPolicy.load("checkpoints/pusht_small.safetensors")
loaded = [name for name in sys.modules if name.split(".")[0] in ("training", "pusht_env")]
assert not loaded, loaded
assert "torch._dynamo" not in sys.modules  # PyTorch's compiler, seconds of a start
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize(
    "module",
    [
        "policy.robot.robot_file",
        "policy.robot.pictures",
        "pusht_env",
        "ros_nodes.overlay.path_overlay",
        "ros_nodes.recorder.recorder_node",
        "ros_nodes.simulator.simulator_node",
    ],
)
def test_what_samples_nothing_starts_without_pytorch(module: str) -> None:
    if module.startswith("ros_nodes"):
        pytest.importorskip("rclpy", reason="needs ROS 2")
    program = f"import sys; sys.modules['torch'] = None; import {module}"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


def test_every_name_of_the_package_policy_is_there() -> None:
    assert {getattr(policy, name).__name__ for name in policy.__all__} == set(policy.__all__)
    with pytest.raises(AttributeError, match="module 'policy' has no attribute 'Polcy'"):
        getattr(policy, "Polcy")  # noqa: B009


@pytest.mark.parametrize(
    ("package", "extra", "there"),
    [("pusht_env", "sim", []), ("training", "train", []), ("training.importing", "import", ["train"])],
)
def test_what_is_missing_is_named(package: str, extra: str, there: list[str]) -> None:
    missing = sorted(libraries(extra) - libraries(*there))
    program = f"import sys; sys.modules.update(dict.fromkeys({missing})); import {package}"
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert f"need: pip install 'pcm_policy[{extra}]'" in run.stderr.replace("needs:", "need:")


def test_launch_files_need_ros_alone() -> None:
    files = sorted((REPOSITORY / "launch").glob("*.py"))
    imported = {name.split(".")[0] for file in files for name in imports_of(file)}
    assert files
    assert imported - sys.stdlib_module_names <= ros_packages()


def test_no_command_imports_from_another() -> None:
    scripts = setup()["entry_points"]["console_scripts"]
    commands = {script.split(" = ")[1].split(":")[0] for script in scripts}
    assert {command: imports(command) & commands for command in commands} == {
        command: set() for command in commands
    }


def test_every_package_says_that_it_is_typed() -> None:
    for package in PACKAGES:
        assert (REPOSITORY / package / "py.typed").exists()
        assert "py.typed" in setup()["package_data"][package]


def test_every_library_that_is_declared_is_pinned() -> None:
    pinned = {
        line.split("==")[0]
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    names = {IMPORTED_AS.get(name, name) for name in pinned}
    assert libraries(*setup()["extras_require"]) <= names
