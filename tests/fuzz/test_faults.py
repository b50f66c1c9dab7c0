"""500 injected faults, each handled as documented. `make fuzz` tries 10,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.case import case_seed
from tests.fuzz.families import families
from tests.fuzz.run import again, prepared, run_all

CASES = {
    "checkpoints": 160,
    "training_states": 120,
    "demonstrations": 80,
    "trajectories": 30,
    "command_options": 50,
    "command_bodies": 10,
}
SEED = 1


def each_in_any_worker(names: list[str]) -> list[object]:
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"fuzz {name}")) for name in names]


@pytest.mark.parametrize("name", each_in_any_worker(list(CASES)))
def test_injected_faults_are_handled(tmp_path: Path, name: str) -> None:
    with prepared(tmp_path, families()) as run:
        verdicts = [run(name, case_seed(SEED, index)) for index in range(CASES[name])]
    mishandled = [f"{each.complaint}\n  {again(each)}" for each in verdicts if each.outcome == "mishandled"]
    assert not mishandled, "\n".join(mishandled)
    # A family whose faults are all refused, or none, would test nothing.
    assert {each.outcome for each in verdicts} == {"refused", "accepted"}


@pytest.mark.xdist_group("fuzz messages")
def test_injected_messages_are_handled() -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2, sourced and for this Python, see docs/ros.md")
    # In a process of its own, with a graph of its own.
    verdicts = list(run_all([("messages", case_seed(SEED, index)) for index in range(50)], processes=1))
    mishandled = [f"{each.complaint}\n  {again(each)}" for each in verdicts if each.outcome == "mishandled"]
    assert not mishandled, "\n".join(mishandled)
    assert {each.outcome for each in verdicts} == {"refused", "accepted"}
