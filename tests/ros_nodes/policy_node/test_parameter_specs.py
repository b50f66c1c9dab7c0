from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.robot.description import COMMAND
from policy.robot.message_types import MESSAGE_TYPES
from policy.robot.robot_file import load_robot
from policy.sampling import sampler_options
from ros_nodes.policy_node.parameter_specs import (
    NODE_PARAMETERS,
    SAMPLER_PARAMETERS,
    ParameterSpec,
    source_parameters,
)

ROOT = Path(__file__).resolve().parents[3]

TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}

EXAMPLE = {
    "observation_sources": ["arm", "gripper"],
    "arm.topic": "joint_states",
    "arm.type": "sensor_msgs/JointState",
    "arm.joints": ["shoulder", "elbow", "wrist"],
    "arm.fields": ["position"],
    "gripper.topic": "gripper/opening",
    "gripper.type": "std_msgs/Float32",
    "joints": ["shoulder", "elbow", "wrist"],
}
"""What the template says of its robot; every other value is the default."""


def specs(*sources: str) -> list[ParameterSpec]:
    """All parameters of a node with these sources."""
    return [
        *NODE_PARAMETERS,
        *(spec for source in (*sources, COMMAND) for spec in source_parameters(source)),
    ]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values = {}
    for name, value in tree.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values


def as_sentence(spec: ParameterSpec, quote: str = "") -> str:
    """The description, with the choices."""
    choices = ", ".join(f"{quote}{choice}{quote}" for choice in spec.choices)
    return spec.description + (f"; one of {choices}" if choices else "")


def as_row(spec: ParameterSpec) -> str:
    """The row of the table in docs/ros.md."""
    default, is_list = spec.default, isinstance(spec.default, list)
    kind = TYPES[type(default[0] if is_list else default)] + (" array" if is_list else "")
    text = (str(default).lower() if isinstance(default, bool) else str(default)).replace("'", '"')
    return f"| `{spec.name}` | {kind} | {f'`{text}`' if text else ''} | {as_sentence(spec, '`')} |"


def comments(text: str) -> dict[str, str]:
    """The comment above each value of a YAML file, on one line, by the value's dotted name."""
    found: dict[str, str] = {}
    names: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        content = line.strip()
        if content.startswith("#"):
            comment.append(content.removeprefix("#").strip())
        elif content:
            indent = len(line) - len(line.lstrip())
            names = [(depth, name) for depth, name in names if depth < indent]
            names.append((indent, content.partition(":")[0]))
            found[".".join(name for _, name in names)] = " ".join(comment)
            comment = []
    return found


def test_the_samplers_parameters_are_the_options_of_its_configuration() -> None:
    options = {name: (option.default, option.metadata) for name, option, _ in sampler_options()}
    assert len(options) > 10
    assert options.keys() == {spec.name for spec in SAMPLER_PARAMETERS} <= {s.name for s in NODE_PARAMETERS}
    for spec in SAMPLER_PARAMETERS:
        default, metadata = options[spec.name]
        described = {name: getattr(spec, name) for name in metadata}
        assert (spec.default, described) == (default, dict(metadata))
        assert spec.live


def test_template_holds_every_parameter_with_its_default() -> None:
    template = yaml.safe_load((ROOT / "config" / "policy.yaml").read_text())["/**"]["ros__parameters"]
    expected = {spec.name: spec.default for spec in specs("arm", "gripper")} | EXAMPLE
    assert flat(template).keys() == expected.keys()
    # As texts, since nan is not equal to itself.
    assert {name: str(value) for name, value in flat(template).items()} == {
        name: str(value) for name, value in expected.items()
    }


def test_the_templates_robot_is_one() -> None:
    robot = load_robot(ROOT / "config" / "policy.yaml")
    assert [(source.name, source.size) for source in robot.sources] == [("arm", 3), ("gripper", 1)]
    assert robot.command is not None
    assert robot.command.joints == robot.joints
    assert (robot.lower_limits, robot.upper_limits) == ((), ())


@pytest.mark.parametrize("spec", SAMPLER_PARAMETERS, ids=lambda spec: spec.name)
def test_template_explains_each_sampler_option_as_its_configuration_does(spec: ParameterSpec) -> None:
    explained = comments((ROOT / "config" / "policy.yaml").read_text())[f"/**.ros__parameters.{spec.name}"]
    sentence = as_sentence(spec)
    assert explained == f"{sentence[0].upper()}{sentence[1:]}."


@pytest.mark.parametrize(
    "spec", [*NODE_PARAMETERS, *source_parameters("<source>")], ids=lambda spec: spec.name
)
def test_documentation_tells_each_type_default_description_and_choice(spec: ParameterSpec) -> None:
    documentation = (ROOT / "docs" / "ros.md").read_text()
    policy_part = documentation.partition("## The policy node")[2].partition("\n## ")[0]
    (row,) = [line for line in policy_part.splitlines() if line.startswith(f"| `{spec.name}` | ")]
    assert row == as_row(spec)


def test_documentation_tells_of_no_sampler_option_that_is_not_there() -> None:
    rows = re.findall(r"^\| `(sampler\.[^*`]+)` \|", (ROOT / "docs" / "ros.md").read_text(), re.MULTILINE)
    assert rows == [spec.name for spec in SAMPLER_PARAMETERS]


def test_documentation_tells_the_fields_of_each_type_of_message() -> None:
    documentation = (ROOT / "docs" / "ros.md").read_text()
    for name, kind in MESSAGE_TYPES.items():
        (row,) = [line for line in documentation.splitlines() if line.startswith(f"| `{name}` | ")]
        told = re.findall(r"`([^`]+)`", row.split("|")[2])
        assert [text for text in told if "…" not in text] == [
            f"{field}[0]" if kind.indexed else field for field in kind.fields
        ], name
        assert row.split("|")[3].strip() == (
            f"`{kind.default[0]}`" if kind.default else "all numbers" if kind.indexed and kind.count else ""
        )


@pytest.mark.parametrize("name", ["pusht", "pusht_image"])
def test_the_file_of_pusht_names_parameters_that_are_there(name: str) -> None:
    parameters = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())["/**"]["ros__parameters"]
    defaults = {spec.name: spec.default for spec in specs("camera", "keypoints", "pusher")}
    assert {name: type(value) for name, value in flat(parameters).items()} == {
        name: type(defaults[name]) for name in flat(parameters)
    }


@pytest.mark.parametrize("spec", specs("arm"), ids=lambda spec: spec.name)
def test_descriptors_tell_people_what_the_specification_says(spec: ParameterSpec) -> None:
    descriptor = spec.descriptor()
    assert descriptor.description
    assert (
        "at the next chunk" if spec.live else "at the next configure"
    ) in descriptor.additional_constraints
    assert all(choice in descriptor.additional_constraints for choice in spec.choices)
    ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
    assert [(limits.from_value, limits.to_value) for limits in ranges] == (
        [] if spec.minimum is None else [(spec.minimum, spec.maximum)]
    )
    assert not descriptor.read_only
