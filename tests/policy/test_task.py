from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.task import Task, task_difference, task_from_values, task_values
from policy.task_parts import Command, ImagePart, Part, TaskError

ARM = Task(
    name="reach",
    rate=30,
    observation=(
        Part(name="arm", names=("shoulder", "elbow"), units=("rad", "rad")),
        Part(name="gripper", names=("opening",), units=("m",)),
    ),
    action=Command(
        names=("shoulder", "elbow", "gripper"),
        units=("rad", "rad", "m"),
        lower=(-1.5, None, 0),
        upper=(1.5, None, 0.08),
    ),
)


def test_sizes_and_slices_follow_the_order_of_the_parts() -> None:
    assert (ARM.observation_dim, ARM.action_dim) == (3, 3)
    assert ARM.slices == {"arm": slice(0, 2), "gripper": slice(2, 3)}
    assert ARM.number_names == ("arm.shoulder", "arm.elbow", "gripper.opening")


numbers = st.floats(-1e6, 1e6) | st.none()


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    rate=st.floats(0.01, 1000),
    lower=st.lists(numbers, min_size=1, max_size=4),
)
def test_a_task_comes_back_from_json(sizes: list[int], rate: float, lower: list[float | None]) -> None:
    parts = tuple(
        Part(name=f"part{index}", names=tuple(map(str, range(size))), units=("m",) * size)
        for index, size in enumerate(sizes)
    )
    names = tuple(f"joint{index}" for index in range(len(lower)))
    upper = tuple(None if limit is None else limit + 1 for limit in lower)
    action = Command(names=names, units=("rad",) * len(names), lower=tuple(lower), upper=upper)
    task = Task(name="any", rate=rate, observation=parts, action=action)
    assert task_from_values(json.loads(json.dumps(task_values(task)))) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0}, "rate must be in 0.001 … 10000 Hz, got 0"),
        ({"rate": True}, "rate must be"),
        ({"rate": float("nan")}, "rate must be"),
        ({"name": ""}, "name of a task"),
        ({"observation": []}, "observation must have 1 … 64 parts, got 0"),
        ({"observation": "arm"}, "observation must be a list of parts"),
        ({"observation": [3]}, r"observation\[0\] must have the keys kind, name"),
        ({"cameras": []}, "task: unknown key 'cameras'"),
        ({"action": None}, "action must have the keys"),
    ],
)
def test_values_that_make_no_task_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task_from_values({**task_values(ARM), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sound"}, r"observation\[0\]: kind must be vector or image, got 'sound'"),
        ({"name": "left arm"}, "name of a part must be a simple name"),
        ({"name": "gripper"}, "two parts named 'gripper'"),
        ({"names": ["a", "a"]}, "arm: names must be distinct and not empty, got 'a'"),
        ({"names": ["a"]}, "arm: 1 names need as many units, got 2"),
        ({"names": []}, "arm: names must be 1"),
        ({"units": ["rad", 1]}, "arm: units must be texts"),
        ({"shape": [2]}, r"observation\[0\]: unknown key 'shape'"),
    ],
)
def test_bad_parts_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    values = task_values(ARM)
    values["observation"][0] |= change
    with pytest.raises(TaskError, match=message):
        task_from_values(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": [0, 0]}, "action: lower must be a list of 3 limits"),
        ({"lower": [2, 0, 0]}, "lower limit of 'shoulder' must be below its upper, got 2.0, 1.5"),
        ({"upper": [float("inf"), 1, 1]}, "action: upper must be finite numbers, or null"),
        ({"upper": ["1", 1, 1]}, "action: upper must be finite numbers"),
        ({"names": ["a", "b", ""]}, "action: names must be distinct and not empty, got ''"),
    ],
)
def test_bad_commands_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    values = task_values(ARM)
    values["action"] |= change
    with pytest.raises(TaskError, match=message):
        task_from_values(values)


CAMERA = ImagePart(name="camera", height=48, width=64)
SEEING = replace(ARM, observation=(CAMERA, *ARM.observation))


def test_pictures_are_no_numbers_of_an_observation() -> None:
    assert (SEEING.images, SEEING.vectors) == ((CAMERA,), ARM.observation)
    assert (SEEING.observation_dim, SEEING.slices) == (3, ARM.slices)
    only = replace(ARM, observation=(CAMERA,))
    assert (only.observation_dim, only.number_names) == (0, ())
    for task in (SEEING, only):
        assert task_from_values(json.loads(json.dumps(task_values(task)))) == task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "camera: height must be a whole number in 1 … 4096 px, got 0"),
        ({"width": 64.0}, "camera: width must be a whole number in 1 … 4096 px, got 64.0"),
        ({"name": "left camera"}, "name of a part must be a simple name"),
        ({"names": ["red"]}, r"observation\[0\]: unknown key 'names'"),
        ({"name": "arm"}, "two parts named 'arm'"),
    ],
)
def test_bad_pictures_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    values = task_values(SEEING)
    values["observation"][0] |= change
    with pytest.raises(TaskError, match=message):
        task_from_values(values)


def test_a_picture_of_another_size_does_not_fit() -> None:
    small = replace(SEEING, observation=(replace(CAMERA, height=24), *ARM.observation))
    vector = Part(name="camera", names=("light",), units=("",))
    assert (
        task_difference(small, SEEING)
        == "camera is a picture of 24 x 64 px, needed is a picture of 48 x 64 px"
    )
    found = task_difference(replace(SEEING, observation=(vector, *ARM.observation)), SEEING)
    assert found == "camera is a vector of 1, needed is a picture of 48 x 64 px"


def test_a_missing_key_is_named() -> None:
    values = task_values(ARM)
    del values["observation"][1]["units"]
    with pytest.raises(TaskError, match=r"observation\[1\]: key 'units' is missing"):
        task_from_values(values)


ELBOW_FIRST = Part(name="arm", names=("elbow", "shoulder"), units=("rad", "rad"))
DEGREES = Part(name="arm", names=("shoulder", "elbow"), units=("rad", "deg"))
ARM_PART, GRIPPER = ARM.observation


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        (replace(ARM, name="another"), ""),
        (replace(ARM, action=replace(ARM.action, lower=(None, None, None))), ""),
        (replace(ARM, observation=(ARM_PART,)), "part gripper is missing, there are arm"),
        (
            replace(ARM, observation=(*ARM.observation, replace(GRIPPER, name="wrist"))),
            "part wrist is too much, needed are arm, gripper",
        ),
        (
            replace(ARM, observation=(GRIPPER, ARM_PART)),
            "parts are gripper, arm, needed in the order arm, gripper",
        ),
        (
            replace(ARM, observation=(ELBOW_FIRST, GRIPPER)),
            "arm: names[0] is 'elbow', needed is 'shoulder'",
        ),
        (replace(ARM, observation=(DEGREES, GRIPPER)), "arm: units[1] is 'deg', needed is 'rad'"),
        (
            replace(ARM, observation=(replace(ARM_PART, names=("shoulder",), units=("rad",)), GRIPPER)),
            "arm has 1 numbers, needed are 2",
        ),
        (
            replace(ARM, action=replace(ARM.action, units=("rad", "rad", "mm"))),
            "action: units[2] is 'mm', needed is 'm'",
        ),
        (replace(ARM, rate=10), "rate is 10 Hz, needed is 30 Hz"),
    ],
)
def test_what_does_not_fit_is_said_by_the_name_of_the_part(found: Task, difference: str) -> None:
    assert task_difference(found, ARM) == difference
