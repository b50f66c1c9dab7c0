from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from ros_nodes.seams.demonstrations import first_demonstrations, would_be_seams


def test_whole_episodes_are_taken_until_they_last_long_enough(tmp_path: Path) -> None:
    steps, ends = 60, [20, 35, 60]
    group = zarr.create_group(tmp_path / "store.zarr")
    actions = np.arange(2 * steps, dtype=np.float32).reshape(steps, 2)
    for name, array in {"action": actions, "keypoint": np.ones((steps, 9, 2), np.float32)}.items():
        group.create_array(f"data/{name}", data=array)
    group.create_array("data/state", data=np.ones((steps, 5), np.float32))
    group.create_array("meta/episode_ends", data=np.array(ends))
    for seconds, count in ((1.0, 1), (2.0, 1), (2.1, 2), (3.6, 3), (100.0, 3)):
        found = first_demonstrations(tmp_path / "store.zarr", seconds=seconds)
        assert [len(each) for each in found] == np.diff([0, *ends])[:count].tolist()
        np.testing.assert_array_equal(np.concatenate(found), actions[: ends[count - 1]])


def test_would_be_seams_are_a_chunk_apart() -> None:
    np.testing.assert_allclose(would_be_seams(1.6, 4.0), [1.6, 2.4, 3.2])
