from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.robot.description import Robot, RobotError
from policy.robot.robot_file import load_robot, node_parameters


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: Any) -> Path:
        path = tmp_path / "robot.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


@pytest.mark.parametrize("node", ["/**", "policy", "/policy", "/*", "**"])
def test_the_file_is_that_of_the_node(
    write: Any, parameters: dict[str, Any], robot: Robot, node: str
) -> None:
    path = write({node: {"ros__parameters": parameters}})
    assert str(load_robot(path)) == str(robot)


def test_a_later_part_of_the_file_comes_first_for_what_it_names() -> None:
    content = {
        "/**": {"ros__parameters": {"seed": 1, "arm": {"topic": "a", "type": "b"}}},
        "left": {"policy": {"ros__parameters": {"arm": {"topic": "c"}}}},
        "/right": {"policy": {"ros__parameters": {"seed": 3}}},
        "recorder": {"ros__parameters": {"seed": 4}},
    }
    assert node_parameters(content, "/left/policy") == {"seed": 1, "arm.topic": "c", "arm.type": "b"}
    assert node_parameters(content, "/right/policy")["seed"] == 3
    assert node_parameters(content, "/policy")["seed"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm: {topic: joint_states}", "must hold `/policy: ros__parameters:`.*, has none"),
        ("simulator: {ros__parameters: {seed: 1}}", "has only for /simulator"),
        ("", "has none"),
        ("- a list", "has none"),
        ("/**:\n  ros__parameters: [a", "line 2: no YAML"),
        ("/**: {ros__parameters: {observation_sources: [arm]}}", "arm.type must be one of"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(write: Any, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(RobotError, match=message) as error:
        load_robot(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_too_large_or_no_text_is_named(write: Any, tmp_path: Path) -> None:
    with pytest.raises(RobotError, match=r"nowhere.yaml: no such robot file"):
        load_robot(tmp_path / "nowhere.yaml")
    with pytest.raises(RobotError, match=r"has 1048577 bytes, at most 1048576"):
        load_robot(write("#" * (2**20 + 1)))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RobotError, match=r"binary.yaml: is not text"):
        load_robot(tmp_path / "binary.yaml")


def test_without_pyyaml_only_the_file_cannot_be_read(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("/**: {ros__parameters: {}}")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(RobotError, match=f"{path}: needs PyYAML to be read: pip install PyYAML"):
        load_robot(path)
