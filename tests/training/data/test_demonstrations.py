from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data.demonstrations import DemonstrationError, load_demonstrations

ZARR_3 = not zarr.__version__.startswith("2.")
ZARR_FORMATS = [2, 3] if ZARR_3 else [2]
EPISODE_ENDS = np.array([3, 20, 45])
CHUNK_STEPS = 10


def small_arrays() -> dict[str, np.ndarray]:
    """Values that follow from step and column, so that a mixed-up row or column shows."""
    steps = np.arange(EPISODE_ENDS[-1], dtype=np.float32)
    return {
        "data/state": steps[:, None] + np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32),
        "data/action": steps[:, None] + np.array([0.6, 0.7], np.float32),
        "data/keypoint": steps[:, None, None] + np.arange(1, 19, dtype=np.float32).reshape(9, 2) / 32,
        "meta/episode_ends": EPISODE_ENDS,
    }


def write_store(path: Path, arrays: dict[str, np.ndarray], zarr_format: int = 2) -> Path:
    # zarr-python 2 and 3 write by different names, which `Any` lets a type checker of either accept.
    options: dict[str, Any] = {"zarr_format": zarr_format} if ZARR_3 else {}
    group: Any = zarr.open_group(str(path), mode="w", **options)
    write_array = group.create_array if ZARR_3 else group.array
    for name, values in arrays.items():
        write_array(name, data=values, chunks=(CHUNK_STEPS, *values.shape[1:]))
    return path


def write_store_with(path: Path, **changed: np.ndarray) -> Path:
    """A store in which one array, named by its last word, is replaced."""
    arrays = small_arrays()
    for word, values in changed.items():
        (name,) = [name for name in arrays if name.endswith(word)]
        arrays[name] = values
    return write_store(path, arrays)


def edited(values: np.ndarray, edit: Callable[[np.ndarray], None]) -> np.ndarray:
    values = values.copy()
    edit(values)
    return values


@pytest.mark.parametrize("zarr_format", ZARR_FORMATS)
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_every_format_to_the_same_values_and_hash(
    tmp_path: Path, zarr_format: int, zipped: bool
) -> None:
    expected = small_arrays()
    path = write_store(tmp_path / "small.zarr", expected, zarr_format)
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))

    read = load_demonstrations(path, task="pusht")

    np.testing.assert_array_equal(read.actions, expected["data/action"])
    np.testing.assert_array_equal(read.episode_ends, EPISODE_ENDS)
    assert read.observations.shape == (45, 20)
    np.testing.assert_array_equal(read.observations[:, 2], expected["data/keypoint"][:, 1, 0])
    np.testing.assert_array_equal(read.observations[:, 17], expected["data/keypoint"][:, 8, 1])
    np.testing.assert_array_equal(read.observations[:, 18:], expected["data/state"][:, :2])
    assert {read.observations.dtype, read.actions.dtype} == {np.dtype(np.float32)}
    assert read.episode_ends.dtype == np.int64
    assert (
        read.sha256
        == load_demonstrations(write_store(tmp_path / "other.zarr", expected), task="pusht").sha256
    )


def test_hash_ignores_how_numbers_are_stored_and_sees_one_changed_number(tmp_path: Path) -> None:
    arrays = small_arrays()
    original = load_demonstrations(write_store(tmp_path / "original.zarr", arrays), task="pusht").sha256
    wider = {
        name: values.astype(">f8" if name != "meta/episode_ends" else ">i4")
        for name, values in arrays.items()
    }
    assert load_demonstrations(write_store(tmp_path / "wider.zarr", wider), task="pusht").sha256 == original
    for name, values in arrays.items():
        if name == "meta/episode_ends":
            changed = edited(values, lambda v: v.__setitem__(0, 4))
        else:
            changed = edited(values, lambda v: v.__setitem__(-1, np.nextafter(v[-1], np.float32(np.inf))))
        store = write_store(tmp_path / "changed.zarr", {**arrays, name: changed})
        assert load_demonstrations(store, task="pusht").sha256 != original, name


def test_images_are_never_decoded(tmp_path: Path) -> None:
    path = write_store(tmp_path / "with_images.zarr", small_arrays())
    without_images = load_demonstrations(path, task="pusht").sha256
    images = path / "data" / "img"
    images.mkdir()
    (images / ".zarray").write_text("this would fail to open")
    assert load_demonstrations(path, task="pusht").sha256 == without_images


@pytest.mark.parametrize("name", list(small_arrays()))
def test_names_a_missing_array(tmp_path: Path, name: str) -> None:
    arrays = small_arrays()
    del arrays[name]
    with pytest.raises(DemonstrationError, match=f"store.zarr: array {name} is missing"):
        load_demonstrations(write_store(tmp_path / "store.zarr", arrays), task="pusht")


SMALL = small_arrays()
BAD_VALUES: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "lengths disagree": (
        {"action": SMALL["data/action"][:-1]},
        "array data/action has 44 steps, but data/keypoint has 45",
    ),
    "nan": (
        {"state": edited(SMALL["data/state"], lambda v: v.__setitem__((slice(7, 9), 3), np.nan))},
        r"array data/state is nan at index \(7, 3\), expected finite",
    ),
    "infinite": (
        {"keypoint": edited(SMALL["data/keypoint"], lambda v: v.__setitem__((5, 8, 1), -np.inf))},
        r"array data/keypoint is -inf at index \(5, 8, 1\)",
    ),
    "larger than float32": (
        {"action": edited(SMALL["data/action"].astype(np.float64), lambda v: v.__setitem__((2, 0), 1e300))},
        r"array data/action is inf at index \(2, 0\)",
    ),
    "wrong width": (
        {"state": SMALL["data/state"][:, :4]},
        r"array data/state has shape \(45, 4\), expected \(N, 5\)",
    ),
    "flattened keypoints": (
        {"keypoint": SMALL["data/keypoint"].reshape(45, 18)},
        r"array data/keypoint has shape \(45, 18\), expected \(N, 9, 2\)",
    ),
    "text": (
        {"action": np.full((45, 2), "x", dtype="S1")},
        r"array data/action holds \|S1, expected numbers",
    ),
    "ends not increasing": (
        {"episode_ends": np.array([3, 20, 20, 45])},
        "array meta/episode_ends does not increase at index 2: 20 after 20",
    ),
    "first episode empty": (
        {"episode_ends": np.array([0, 45])},
        "array meta/episode_ends does not increase at index 0: 0 after 0",
    ),
    "past the end": (
        {"episode_ends": np.array([3, 46, 50])},
        "array meta/episode_ends is 46 at index 1, past the 45 steps",
    ),
    "short of the end": (
        {"episode_ends": np.array([3, 44])},
        "array meta/episode_ends is 44 at index 1, short of the 45 steps",
    ),
    "ends not integers": (
        {"episode_ends": np.array([3.0, 45.0])},
        "array meta/episode_ends holds float64, expected integers",
    ),
    "no episode": ({"episode_ends": np.zeros(0, np.int64)}, "array meta/episode_ends is empty"),
    "no step": ({"state": np.zeros((0, 5), np.float32)}, "array data/state is empty"),
}


@pytest.mark.parametrize("case", list(BAD_VALUES))
def test_names_file_array_and_first_bad_index(tmp_path: Path, case: str) -> None:
    changed, message = BAD_VALUES[case]
    with pytest.raises(DemonstrationError, match=message) as raised:
        load_demonstrations(write_store_with(tmp_path / "store.zarr", **changed), task="pusht")
    assert str(raised.value).startswith(str(tmp_path / "store.zarr"))
    assert "\n" not in str(raised.value)


def test_names_the_chunk_that_is_corrupt(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr", small_arrays())
    (path / "data" / "action" / "2.0").write_bytes(b"\x00" * 20)
    with pytest.raises(
        DemonstrationError, match="data/action cannot be decoded, in the chunk from index 20"
    ) as raised:
        load_demonstrations(path, task="pusht")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("zarr_format", ZARR_FORMATS)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_missing_chunk_is_not_read_as_zeros(tmp_path: Path, zarr_format: int, zipped: bool) -> None:
    path = write_store(tmp_path / "store.zarr", small_arrays(), zarr_format)
    (path / "data" / "action" / ("3.0" if zarr_format == 2 else "c/3/0")).unlink()
    if zipped:
        path = Path(shutil.make_archive(str(path), "zip", path))
    with pytest.raises(DemonstrationError, match="array data/action has only 4 of its 5 chunks"):
        load_demonstrations(path, task="pusht")


def test_names_a_path_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DemonstrationError, match=r"absent\.zarr: no such file or folder"):
        load_demonstrations(tmp_path / "absent.zarr", task="pusht")
    assert not (tmp_path / "absent.zarr").exists()

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DemonstrationError, match="empty: not a zarr store: no readable group at its root"):
        load_demonstrations(empty, task="pusht")
    assert not list(empty.iterdir())

    text = tmp_path / "store.zarr.zip"
    text.write_text("not a zip")
    with pytest.raises(DemonstrationError, match=r"store\.zarr\.zip: not a zarr store"):
        load_demonstrations(text, task="pusht")

    other_zip = Path(shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path, "store.zarr.zip"))
    with pytest.raises(
        DemonstrationError, match=r"other\.zip: not a zarr store: no readable group at its root"
    ):
        load_demonstrations(other_zip, task="pusht")

    damaged = Path(shutil.make_archive(str(tmp_path / "damaged"), "zip", tmp_path, "store.zarr.zip"))
    content = damaged.read_bytes()
    directory = content.index(b"PK\x01\x02")
    damaged.write_bytes(content[:directory] + b"\x00" * 8 + content[directory + 8 :])
    with pytest.raises(DemonstrationError, match=r"damaged\.zip: not a zarr store"):
        load_demonstrations(damaged, task="pusht")


def test_names_a_group_or_unreadable_metadata_in_place_of_an_array(tmp_path: Path) -> None:
    path = write_store(tmp_path / "store.zarr", small_arrays())
    metadata = path / "data" / "state" / ".zarray"
    metadata.write_text("{")
    with pytest.raises(DemonstrationError, match="array data/state cannot be opened"):
        load_demonstrations(path, task="pusht")
    metadata.unlink()
    (path / "data" / "state" / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(DemonstrationError, match="data/state is a group, not an array"):
        load_demonstrations(path, task="pusht")


def test_published_demonstrations_have_their_known_size(demonstrations_path: Path) -> None:
    demonstrations = load_demonstrations(demonstrations_path, task="pusht")
    assert demonstrations.observations.shape == (25650, 20)
    assert demonstrations.actions.shape == (25650, 2)
    assert len(demonstrations.episode_ends) == 206
