"""Pictures of an episode are written one by one, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from policy.task import Command, Part, Task
from policy.task_parts import ImagePart
from training.data.demonstrations import load_demonstrations
from training.data.store_files import StoreError
from training.data.write_demonstrations import write_demonstrations

FRONT, WRIST = (ImagePart(name=name, height=6, width=8) for name in ("front", "wrist"))
TASK = Task(
    name="seeing",
    rate=10,
    observation=(FRONT, Part(name="arm", names=("a",), units=("",)), WRIST),
    action=Command(names=("a",), units=("",), lower=(None,), upper=(None,)),
)


def numbers(steps: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.arange(steps, dtype=np.float32)[:, None], np.ones((steps, 1), np.float32)


def pictures(steps: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (steps, 6, 8, 3), dtype=np.uint8)


def both(steps: int, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    return {"front": pictures(steps, seed), "wrist": pictures(steps, seed + 1)}


def test_a_killed_import_goes_on_after_the_last_whole_episode(tmp_path: Path) -> None:
    path, origin = tmp_path / "seen.zarr", {"source": "a bag"}

    def breaks() -> Iterator[NDArray[np.uint8]]:
        yield from pictures(3, 7)
        raise KeyboardInterrupt

    def is_killed() -> None:
        with write_demonstrations(path, TASK, origin=origin) as writer:
            writer.append(*numbers(4), pictures=both(4), source="0")
            writer.count({"front.used": 4})
            writer.append(*numbers(5), pictures={**both(5, 2), "wrist": breaks()}, source="1")

    with pytest.raises(KeyboardInterrupt):
        is_killed()
    assert not path.exists()
    with write_demonstrations(path, TASK, origin=origin) as writer:
        assert (writer.sources, writer.ends, writer.counts) == (["0"], [4], {"front.used": 4})
        writer.append(*numbers(2), pictures=both(2, 9), source="1")
    read = load_demonstrations(path)
    assert read.episode_ends.tolist() == [4, 6]
    for name, part in (("front", 0), ("wrist", 1)):
        expected = np.concatenate([pictures(4, part), pictures(2, 9 + part)])
        np.testing.assert_array_equal(read.pictures[name].read(np.arange(6)), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"front": pictures(3, 0)}, "has pictures of front, expected front, wrist"),
        ({**both(3), "wrist": pictures(2, 0)}, "episode 0: wrist has 2 pictures for 3 steps"),
        ({**both(3), "wrist": pictures(4, 0)}, "episode 0: wrist has 4 pictures for 3 steps"),
        ({**both(3), "front": pictures(3, 0)[:, :5]}, r"picture 0 is uint8 of the shape \(5, 8, 3\)"),
        ({**both(3), "front": pictures(3, 0).astype(float)}, "picture 0 is float64 of the shape"),
        (None, "has pictures of none, expected front, wrist"),
    ],
)
def test_pictures_that_do_not_fit_are_named_and_nothing_is_added(
    tmp_path: Path, given: Any, message: str
) -> None:
    path = tmp_path / "seen.zarr"
    with write_demonstrations(path, TASK) as writer:
        with pytest.raises(StoreError, match=message):
            writer.append(*numbers(3), pictures=given)
        writer.append(*numbers(3), pictures=both(3))
    np.testing.assert_array_equal(
        load_demonstrations(path).pictures["front"].read(np.arange(3)), pictures(3, 0)
    )


def test_a_camera_cannot_be_named_as_the_actions_are(tmp_path: Path) -> None:
    task = replace(TASK, observation=(replace(FRONT, name="action"),))
    with (
        pytest.raises(StoreError, match="must not be named action"),
        write_demonstrations(tmp_path / "a.zarr", task),
    ):
        pass
