from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data.store_arrays import EPISODE_ENDS, StoreContent, read_store
from training.data.store_files import StoreError
from training.data.whole_store import locked_store
from training.pusht.append_episode import ROWS, append_episode


def episode(steps: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "states": rng.uniform(50, 450, (steps, 5)),
        "actions": rng.uniform(50, 450, (steps, 2)),
        "n_contacts": rng.integers(0, 4, (steps, 1)),
    }


def read(path: Path) -> StoreContent:
    return read_store(path, lambda attributes: {**ROWS, EPISODE_ENDS: ()})


def test_episodes_follow_each_other_in_the_published_layout(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.zarr"
    episodes = [episode(5, 1), episode(1, 2), episode(7, 3)]
    assert [append_episode(path, **each) for each in episodes] == [1, 2, 3]
    content = read(path)
    for array, name in (("state", "states"), ("action", "actions"), ("n_contacts", "n_contacts")):
        rows = np.concatenate([each[name] for each in episodes]).astype(np.float32)
        np.testing.assert_array_equal(content.arrays[f"data/{array}"], rows)
    np.testing.assert_array_equal(content.arrays[EPISODE_ENDS], [5, 6, 13])
    assert content.attributes["task"] == "pusht"


def test_keypoints_are_the_published_ones_of_the_same_poses(
    demonstrations_path: Path, tmp_path: Path
) -> None:
    published = read(demonstrations_path).arrays
    first = slice(published[EPISODE_ENDS][0])
    append_episode(
        tmp_path / "store.zarr",
        published["data/state"][first],
        published["data/action"][first],
        n_contacts=published["data/n_contacts"][first],
    )
    found = read(tmp_path / "store.zarr").arrays["data/keypoint"]
    np.testing.assert_allclose(found, published["data/keypoint"][first], atol=0.05)


def test_a_store_with_images_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    append_episode(path, **episode(5, 1))
    group: Any = zarr.open_group(str(path), mode="r+")
    group["data"]["img"] = np.zeros((5, 2, 2, 3), np.float32)
    with pytest.raises(StoreError, match="array data/img has no values in a new episode"):
        append_episode(path, **episode(5, 2))
    np.testing.assert_array_equal(read(path).arrays[EPISODE_ENDS], [5])


@pytest.mark.parametrize(
    ("states", "actions", "message"),
    [
        (np.zeros((3, 4)), np.zeros((3, 2)), r"data/state has shape \(3, 4\), expected \(3, 5\)"),
        (np.zeros((3, 5)), np.zeros((2, 2)), r"data/action has shape \(2, 2\), expected \(3, 2\)"),
        (np.zeros((0, 5)), np.zeros((0, 2)), r"data/state has shape \(0, 5\)"),
        (np.full((3, 5), np.nan), np.zeros((3, 2)), r"data/state is nan at index \(0, 0\)"),
    ],
)
def test_an_episode_that_cannot_be_is_refused(
    tmp_path: Path, states: np.ndarray, actions: np.ndarray, message: str
) -> None:
    with pytest.raises(StoreError, match=message):
        append_episode(tmp_path / "store.zarr", states, actions, n_contacts=np.zeros((len(states), 1)))
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    with locked_store(path), pytest.raises(StoreError, match="another process is writing it"):
        append_episode(path, **episode(5, 1))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_append_episode import episode
from training.pusht.append_episode import append_episode
print("ready", flush=True)
while True:
    append_episode(Path({path!r}), **episode(4, 0))
"""


def test_a_store_is_whole_whenever_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    added = episode(4, 0)
    append_episode(path, **added)
    before = 1
    for delay in (0.0, 0.017, 0.029):
        program = KILLED.format(folder=str(Path(__file__).parent), path=str(path))
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrays = read(path).arrays
        ends = arrays[EPISODE_ENDS]
        assert len(ends) >= before
        before = len(ends)
        np.testing.assert_array_equal(ends, 4 * np.arange(1, len(ends) + 1))
        np.testing.assert_array_equal(
            arrays["data/action"], np.tile(added["actions"].astype(np.float32), (len(ends), 1))
        )
    assert append_episode(path, **added) == before + 1
