"""Pictures of demonstrations, from a store to a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data.demonstrations import DemonstrationError, load_demonstrations

TASK = """
name: seen
rate: 10
observation:
  - {kind: image, name: camera, array: img, height: 6, width: 8}
  - {name: arm, array: state, names: [x], units: px}
action: {array: action, names: [x], units: px}
"""
STEPS = 10


@pytest.fixture
def task(tmp_path: Path) -> str:
    (tmp_path / "seen.yaml").write_text(TASK, encoding="utf-8")
    return str(tmp_path / "seen.yaml")


def make_store(path: Path, pictures: np.ndarray | None, **attributes: Any) -> Path:
    """A store of 10 steps in two episodes, its pictures in chunks of 3."""
    group = zarr.open_group(path, mode="w")
    arrays: dict[str, np.ndarray] = {
        "data/state": np.arange(STEPS, dtype=np.float32)[:, None],
        "data/action": np.arange(STEPS, dtype=np.float32)[:, None],
        "meta/episode_ends": np.array([4, STEPS]),
    }
    if pictures is not None:
        arrays["data/img"] = pictures
    for name, values in arrays.items():
        chunks = (3, *values.shape[1:]) if name == "data/img" else values.shape
        written = group.create_array(name, shape=values.shape, chunks=chunks, dtype=values.dtype)
        written[:] = values
    group.attrs.update(attributes)
    return path


def drawn(count: int = STEPS) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (count, 6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_whole_numbers_of_any_type_are_pictures(tmp_path: Path, task: str, dtype: type) -> None:
    store = make_store(tmp_path / "seen.zarr", drawn().astype(dtype))
    demonstrations = load_demonstrations(store, task=task)

    assert demonstrations.observations.shape == (STEPS, 1)
    steps = np.array([7, 0, 0, 9])
    np.testing.assert_array_equal(demonstrations.pictures["camera"].read(steps), drawn()[steps])


def test_pictures_are_part_of_the_hash_whatever_their_type(tmp_path: Path, task: str) -> None:
    other = drawn()
    other[5, 2, 3, 1] ^= 1
    hashes = [
        load_demonstrations(make_store(tmp_path / "seen.zarr", pictures), task=task).sha256
        for pictures in (drawn(), drawn().astype(np.float32), other)
    ]

    assert hashes[0] == hashes[1] != hashes[2]


def half(pictures: np.ndarray) -> np.ndarray:
    pictures = pictures.astype(np.float32)
    pictures[4, 1, 2, 0] = 7.5
    return pictures


@pytest.mark.parametrize(
    ("pictures", "attributes", "message"),
    [
        (None, {}, "array data/img is missing"),
        (drawn()[:, :4], {}, r"array data/img has shape \(10, 4, 8, 3\), expected \(N, 6, 8, 3\)"),
        (drawn()[..., :2], {}, r"has shape \(10, 6, 8, 2\), expected \(N, 6, 8, 3\)"),
        (drawn(8), {}, "array data/img has 8 pictures, but there are 10 steps"),
        (half(drawn()), {}, r"is 7.5 at index \(4, 1, 2, 0\), expected uint8, or whole numbers of 0 to 255"),
        (
            drawn().astype(np.int16) - 300,
            {},
            r"array data/img is -\d+ at index \(0, 0, 0, 0\), expected uint8",
        ),
        (drawn(), {"sha256": {"data/img": "0"}}, "array data/img is damaged"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_line(
    tmp_path: Path, task: str, pictures: np.ndarray | None, attributes: dict[str, Any], message: str
) -> None:
    store = make_store(tmp_path / "seen.zarr", pictures, **attributes)

    with pytest.raises(DemonstrationError, match=message) as refused:
        load_demonstrations(store, task=task)
    assert "\n" not in str(refused.value)
    assert str(store) in str(refused.value)


def test_nothing_is_left_where_pictures_were(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    store = make_store(tmp_path / "seen.zarr", drawn())
    demonstrations = load_demonstrations(store, task=task, pictures_folder=folder)

    assert len(demonstrations.pictures["camera"]) == STEPS
    assert not list(folder.iterdir())
