"""Stores of any arrays, described by their own attributes or by a task's YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from policy import DiffusionPolicy
from policy.task import Command, Part, Task, TaskError, task_values
from training.data.demonstrations import DemonstrationError, load_demonstrations
from training.data.task_file import load_task
from training.data.write_demonstrations import write_demonstrations

ARM = Task(
    name="arm",
    rate=30,
    observation=(
        Part(name="joints", names=("shoulder", "elbow"), units=("rad", "rad")),
        Part(name="gripper", names=("opening",), units=("m",)),
    ),
    action=Command(names=("shoulder", "elbow"), units=("rad", "rad"), lower=(None, -1.0), upper=(None, 1.0)),
)
STEPS = 12
FOREIGN = {
    "data/qpos": np.arange(STEPS * 6, dtype=np.float64).reshape(STEPS, 3, 2),
    "data/ctrl": np.arange(STEPS * 2, dtype=np.float32).reshape(STEPS, 2),
    "data/img": np.zeros((STEPS, 4, 4, 3), np.float32),
    "meta/episode_ends": np.array([5, STEPS]),
}
DESCRIPTION = """
name: arm
rate: 30
observation:
  - {name: joints, array: qpos, shape: [3, 2], columns: [4, 1], names: [shoulder, elbow], units: rad}
  - {name: gripper, array: qpos, columns: [0], names: [opening], units: [m]}
action: {array: ctrl, names: [shoulder, elbow], units: rad, lower: [null, -1], upper: [null, 1]}
"""


def write_foreign(path: Path, arrays: dict[str, np.ndarray] = FOREIGN) -> Path:
    group: Any = zarr.open_group(str(path), mode="w")
    for name, values in arrays.items():
        group[name] = values
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A store of this project's own."""
    path = tmp_path / "arm.zarr"
    rng = np.random.default_rng(0)
    with write_demonstrations(path, ARM) as writer:
        for steps in (5, 7):
            writer.append(rng.normal(size=(steps, 3)), rng.normal(size=(steps, 2)))
    return path


@pytest.fixture
def described(tmp_path: Path) -> Path:
    file = tmp_path / "arm.yaml"
    file.write_text(DESCRIPTION)
    return file


def test_a_store_of_our_own_says_itself_what_it_holds(tmp_path: Path) -> None:
    observations, actions = np.arange(9, dtype=np.float32).reshape(3, 3), np.ones((3, 2), np.float32)
    with write_demonstrations(tmp_path / "arm.zarr", ARM) as writer:
        writer.append(observations, actions)
    read = load_demonstrations(tmp_path / "arm.zarr")
    assert read.task == ARM
    np.testing.assert_array_equal(read.observations, observations)
    np.testing.assert_array_equal(read.actions, actions)
    np.testing.assert_array_equal(read.episode_ends, [3])


def test_a_yaml_file_names_arrays_and_columns_of_any_store(tmp_path: Path, described: Path) -> None:
    read = load_demonstrations(write_foreign(tmp_path / "foreign.zarr"), task=str(described))
    assert read.task == ARM
    rows = FOREIGN["data/qpos"].reshape(STEPS, 6)
    np.testing.assert_array_equal(read.observations, rows[:, [4, 1, 0]])
    np.testing.assert_array_equal(read.actions, FOREIGN["data/ctrl"])
    assert read.observations.dtype == np.float32


def test_one_changed_number_is_damage(own: Path) -> None:
    group: Any = zarr.open_group(str(own), mode="r+")
    group["data/gripper"][3, 0] += 1
    with pytest.raises(
        DemonstrationError, match=r"arm\.zarr: array data/gripper is damaged: .* another hash"
    ):
        load_demonstrations(own)


def test_a_store_that_nothing_describes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        DemonstrationError, match=r"foreign\.zarr: .* say it by task=pusht\|pusht_image or task=FILE\.yaml"
    ):
        load_demonstrations(write_foreign(tmp_path / "foreign.zarr"))


@pytest.mark.parametrize("attribute", [{"name": "arm"}, "arm", "../arm", 7, ["pusht"]])
def test_attributes_that_describe_no_task_are_refused(own: Path, attribute: object) -> None:
    group: Any = zarr.open_group(str(own), mode="r+")
    group.attrs["task"] = attribute
    with pytest.raises(DemonstrationError, match=r"arm\.zarr: its attributes describe no task") as refused:
        load_demonstrations(own)
    assert "\n" not in str(refused.value)


def test_demonstrations_that_do_not_fit_a_policy_are_refused_by_the_part(own: Path, tmp_path: Path) -> None:
    assert load_demonstrations(own, policy_task=ARM).task == ARM
    with pytest.raises(
        DemonstrationError,
        match=r"arm\.zarr: demonstrations do not fit the policy: part keypoints is missing",
    ):
        load_demonstrations(own, policy_task=load_task("pusht").task)


CHANGED: dict[str, tuple[str, str, str]] = {
    "array that is not there": ("array: ctrl", "array: control", "array data/control is missing"),
    "shape": ("shape: [3, 2]", "shape: [2, 3]", r"has shape \(12, 3, 2\), expected \(N, 2, 3\)"),
    "column": ("columns: [0]", "columns: [6]", "gripper needs column 6 of array data/qpos, which has 6"),
    "all columns": ("columns: [0], ", "", "gripper has 1 names, but array data/qpos has rows of 6 numbers"),
    "count of columns": ("[4, 1]", "[4]", "joints: 2 names need as many columns, got 1"),
    "count of units": ("units: [m]", "units: [m, m]", "gripper: 1 names need as many units, got 2"),
    "a path": ("array: ctrl", "array: ../ctrl", "action: array must name an array of the group data"),
    "unknown key": ("array: ctrl", "arrays: ctrl", "action: unknown key 'arrays', must be among names"),
    "negative": ("[4, 1]", "[4, -1]", "columns must be a list of whole numbers from 0 on"),
    "no rate": ("rate: 30", "", "task: key 'rate' is missing"),
    "no action": ("action:", "actions:", "action must have the keys array"),
    "no list": ("observation:", "observation: 3 #", "not the YAML of a task|observation .a list of parts"),
    "not YAML": ("name: arm", "name: [arm", "not the YAML of a task"),
    "interpolation": ("name: arm", "name: ${oc.env:HOME}x${nothing}", "not the YAML of a task"),
}


@pytest.mark.parametrize("case", list(CHANGED))
def test_a_yaml_file_that_does_not_fit_is_refused_by_key_or_array(
    tmp_path: Path, described: Path, case: str
) -> None:
    before, after, message = CHANGED[case]
    assert before in DESCRIPTION
    described.write_text(DESCRIPTION.replace(before, after))
    with pytest.raises(DemonstrationError, match=message) as refused:
        load_demonstrations(write_foreign(tmp_path / "foreign.zarr"), task=str(described))
    assert "\n" not in str(refused.value)


def test_arrays_of_other_lengths_are_refused(tmp_path: Path, described: Path) -> None:
    shorter = {**FOREIGN, "data/ctrl": FOREIGN["data/ctrl"][:-1]}
    with pytest.raises(DemonstrationError, match="array data/ctrl has 11 steps, but data/qpos has 12"):
        load_demonstrations(write_foreign(tmp_path / "foreign.zarr", shorter), task=str(described))


def test_a_task_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"task must be pusht or pusht_image, or a file \*\.yaml, got 'push'"):
        load_task("push")
    with pytest.raises(TaskError, match=r"absent\.yaml: No such file"):
        load_task(str(tmp_path / "absent.yaml"))


def test_the_shipped_task_is_that_of_the_shipped_policy() -> None:
    policy = DiffusionPolicy.load(Path(__file__).parents[3] / "checkpoints" / "pusht_small.safetensors")
    assert task_values(policy.task) == task_values(load_task("pusht").task)
