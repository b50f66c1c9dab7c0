from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ros_nodes.policy_node.policy_parameter_specs import NODE_PARAMETERS, ParameterSpec, source_parameters

ROOT = Path(__file__).resolve().parents[3]

SPECS = [
    *NODE_PARAMETERS,
    *(spec for source in ("keypoints", "pusher") for spec in source_parameters(source)),
]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values = {}
    for name, value in tree.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return values


def test_template_holds_every_parameter_with_its_default() -> None:
    template = yaml.safe_load((ROOT / "config" / "policy.yaml").read_text())["/**"]["ros__parameters"]
    assert flat(template) == {spec.name: spec.default for spec in SPECS}


@pytest.mark.parametrize("spec", NODE_PARAMETERS, ids=lambda spec: spec.name)
def test_documentation_tells_each_default_and_choice(spec: ParameterSpec) -> None:
    documentation = (ROOT / "docs" / "ros.md").read_text()
    policy_part = documentation.partition("## The policy node")[2].partition("\n## ")[0]
    (row,) = [line for line in policy_part.splitlines() if line.startswith(f"| `{spec.name}` | ")]
    default = str(spec.default).lower() if isinstance(spec.default, bool) else str(spec.default)
    assert f"| `{default}` |".replace("'", '"') in row or not default
    assert all(f"`{choice}`" in row for choice in spec.choices)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
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
