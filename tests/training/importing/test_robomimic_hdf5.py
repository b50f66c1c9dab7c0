from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from small_recordings import LENGTHS, arm, commands, gripper, steps_of, write_hdf5

from training.importing.recording import EpisodeError, RecordingError


def test_every_row_comes_back_in_the_order_of_the_numbers(tmp_path: Path, imported: Any) -> None:
    found, arrays = imported(write_hdf5(tmp_path / "lift.hdf5"))
    steps = np.arange(sum(LENGTHS), dtype=np.float64)
    assert list(found.recording.episodes) == ["demo_8", "demo_9", "demo_10"]
    np.testing.assert_array_equal(arrays["data/arm"], arm(steps))
    np.testing.assert_array_equal(arrays["data/gripper"], gripper(steps))
    np.testing.assert_array_equal(arrays["data/action"], commands(steps))
    np.testing.assert_array_equal(arrays["meta/episode_ends"], np.cumsum(LENGTHS))
    task = found.recording.task
    assert (task.name, task.rate) == ("lift", 10.0)
    assert task.number_names == ("arm.0", "arm.1", "gripper.0")
    assert list(found.recording.left_out) == ["front_image (4×4×3 uint8)"]


def test_parts_and_actions_can_be_chosen(tmp_path: Path, imported: Any) -> None:
    source = write_hdf5(
        tmp_path / "lift.h5",
        lambda file: [
            file.create_dataset(f"data/{name}/actions_abs", data=np.ones((len(group["actions"]), 3)))
            for name, group in file["data"].items()
        ],
    )
    found, arrays = imported(source, parts=["gripper"], actions="actions_abs")
    assert list(found.recording.task.slices) == ["gripper"]
    assert arrays["data/action"].shape == (15, 3)
    assert "arm (not chosen)" in found.recording.left_out


def replace(name: str, values: Callable[[np.ndarray], Any], demo: str = "demo_9") -> Callable[[Any], None]:
    def change(file: Any) -> None:
        group = file[f"data/{demo}"]
        before = group[name][()]
        del group[name]
        group[name] = values(before)

    return change


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[2, 1] = value
        return values

    return change


def remove(name: str) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[name]

    return change


DAMAGES = {
    "nan": (replace("actions", with_value(np.nan)), r"actions is nan in row 2 \(1\)"),
    "too large": (replace("actions", with_value(1e300)), r"actions is 1e\+300 in row 2"),
    "other width": (
        replace("obs/arm", lambda values: values[:, :1]),
        r"obs/arm has the shape \(4, 1\), need \(4, 2\)",
    ),
    "other length": (replace("obs/arm", lambda values: values[:3]), r"obs/arm has the shape \(3, 2\), need"),
    "text": (replace("obs/arm", lambda values: "text"), "obs/arm holds object, allowed are numbers"),
    "pictures": (
        replace("obs/arm", lambda values: np.zeros((4, 8, 8))),
        r"obs/arm has the shape \(4, 8, 8\)",
    ),
    "missing": (remove("data/demo_9/obs/arm"), "obs/arm is missing, there are front_image, gripper"),
    "no observations": (remove("data/demo_9/obs"), "obs/arm is missing"),
    "no actions": (remove("data/demo_9/actions"), "actions is missing, there are obs"),
    "no step": (replace("actions", lambda values: values[:0]), "actions is empty"),
    "fewer than said": (
        lambda file: file["data/demo_9"].attrs.create("num_samples", 9),
        "actions has 4 steps, num_samples says 9",
    ),
    "count that is none": (
        lambda file: file["data/demo_9"].attrs.create("num_samples", "many"),
        "num_samples cannot be read",
    ),
    "dangling link": (
        lambda file: replace("obs/arm", lambda values: h5py.SoftLink("/nowhere"))(file),
        "obs/arm is missing",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_episode_is_named_and_can_be_left_out(
    tmp_path: Path, imported: Any, damage: Callable[[Any], None], message: str
) -> None:
    source = write_hdf5(tmp_path / "lift.hdf5", damage)
    with pytest.raises(EpisodeError, match=f"{source}: episode demo_9: {message}") as caught:
        imported(source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()
    found, arrays = imported(source, skip_bad=True)
    assert [name for name, _ in found.dropped] == ["demo_9"]
    np.testing.assert_array_equal(arrays["data/arm"], arm(np.concatenate([steps_of(0), steps_of(2)])))


def test_a_damaged_chunk_is_named_and_its_episode_can_be_left_out(tmp_path: Path, imported: Any) -> None:
    def compress(file: Any) -> None:
        values = np.random.default_rng(0).random((4, 2))
        del file["data/demo_9/actions"]
        file.create_dataset("data/demo_9/actions", data=values, chunks=(4, 2), compression="gzip")

    source = write_hdf5(tmp_path / "lift.hdf5", compress)
    with h5py.File(source) as file:
        chunk = file["data/demo_9/actions"].id.get_chunk_info(0)
    content = bytearray(source.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    source.write_bytes(content)
    with pytest.raises(EpisodeError, match="episode demo_9: actions cannot be read"):
        imported(source)
    assert imported(source, skip_bad=True)[0].bad_episodes == 1


def keep_half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def damage_heaps(file: Path) -> None:
    """Destroys where the names of groups are."""
    file.write_bytes(file.read_bytes().replace(b"HEAP", b"DAMP"))


def edited(edit: Callable[[Any], Any]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return change


WHOLE = {
    "missing": (Path.unlink, "no such file"),
    "truncated": (keep_half, "not a whole HDF5 file"),
    "empty": (lambda file: file.write_bytes(b""), "not a whole HDF5 file"),
    "damaged groups": (damage_heaps, "damaged: "),
    "no HDF5": (lambda file: file.write_text("text"), "not a whole HDF5 file"),
    "no data": (edited(remove("data")), "group data is missing, there are none"),
    "no episode": (
        edited(lambda file: [file["data"].pop(name) for name in list(file["data"])]),
        "group data has 0 episodes",
    ),
    "no observations": (
        edited(lambda file: [file["data"][name].pop("obs") for name in file["data"]]),
        "episode demo_8: no group obs, there are actions .*dataset_states_to_obs adds observations",
    ),
    "no rate": (edited(lambda file: file["data"].attrs.pop("env_args")), "say no control_freq; rate=…"),
    "rate that is none": (
        edited(
            lambda file: file["data"].attrs.create(
                "env_args", json.dumps({"env_kwargs": {"control_freq": -1}})
            )
        ),
        "say no control_freq; rate=…",
    ),
    "arguments that are none": (
        edited(lambda file: file["data"].attrs.create("env_args", "[" * 100_000)),
        "say no control_freq; rate=…",
    ),
}


@pytest.mark.parametrize(("damage", "message"), WHOLE.values(), ids=WHOLE)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, imported: Any, damage: Callable[[Path], Any], message: str
) -> None:
    source = write_hdf5(tmp_path / "lift.hdf5")
    damage(source)
    with pytest.raises(RecordingError, match=f"{source}: .*{message}") as caught:
        imported(source, skip_bad=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


def test_the_rate_is_taken_where_the_file_says_none(tmp_path: Path, imported: Any) -> None:
    source = write_hdf5(tmp_path / "lift.hdf5", lambda file: file["data"].attrs.pop("env_args"))
    assert imported(source, rate=20)[0].recording.task.rate == 20


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"parts": ["elbow"]}, "no part 'elbow', there are arm, gripper"),
        ({"actions": "targets"}, "episode demo_8: targets is missing, there are actions, obs"),
        ({"rate": 20.0}, "env_args say control_freq 10, rate=20 cannot be kept"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(
    tmp_path: Path, imported: Any, choice: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        imported(write_hdf5(tmp_path / "lift.hdf5"), **choice)
