from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from policy.task import Command, Part, Task, task_values
from training.data.array_hash import array_sha256
from training.data.store_files import StoreError
from training.data.whole_store import write_store
from training.data.write_demonstrations import EpisodeWriter, write_demonstrations

ARM = Task(
    name="arm",
    rate=30,
    observation=(
        Part(name="joints", names=("shoulder", "elbow"), units=("rad", "rad")),
        Part(name="gripper", names=("opening",), units=("m",)),
    ),
    action=Command(names=("shoulder", "elbow"), units=("rad", "rad"), lower=(None, -1.0), upper=(None, 1.0)),
)


def episode(steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(steps, 3)).astype(np.float32), rng.normal(size=(steps, 2)).astype(np.float32)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    group: Any = zarr.open_group(str(path), mode="r")
    names = ("data/joints", "data/gripper", "data/action", "meta/episode_ends")
    return {name: group[name][:] for name in names}, dict(group.attrs)


def test_the_store_holds_parts_actions_ends_and_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "arm.zarr"
    episodes = [episode(5, 1), episode(1, 2), episode(7, 3)]
    with write_demonstrations(path, ARM, provenance={"source": "a bag"}) as writer:
        for observations, actions in episodes:
            writer.append(observations, actions)
        assert not path.exists()
    arrays, attributes = read(path)
    observations = np.concatenate([each for each, _ in episodes])
    np.testing.assert_array_equal(arrays["data/joints"], observations[:, :2])
    np.testing.assert_array_equal(arrays["data/gripper"], observations[:, 2:])
    np.testing.assert_array_equal(arrays["data/action"], np.concatenate([each for _, each in episodes]))
    np.testing.assert_array_equal(arrays["meta/episode_ends"], [5, 6, 13])
    assert attributes["task"] == json.loads(json.dumps(task_values(ARM)))
    assert attributes["sha256"] == {name: array_sha256(values) for name, values in arrays.items()}
    assert attributes["provenance"] == {"source": "a bag"}
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock"] == ["arm.zarr"]


def test_many_chunks_hold_what_one_would_those_of_zeros_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.data.whole_store.CHUNK_BYTES", 64)
    values = np.arange(70, dtype=np.float32).reshape(35, 2)
    values[8:24] = 0
    write_store(tmp_path / "store.zarr", {"data/action": values}, {})
    group: Any = zarr.open_group(str(tmp_path / "store.zarr"), mode="r")
    assert group["data/action"].chunks == (8, 2)
    assert group["data/action"].nchunks_initialized == 5
    np.testing.assert_array_equal(group["data/action"][:], values)


BAD_EPISODES: dict[str, tuple[Any, Any, str]] = {
    "width": (np.zeros((4, 2)), np.zeros((4, 2)), r"observations are float64 of the shape \(4, 2\)"),
    "lengths": (np.zeros((4, 3)), np.zeros((5, 2)), "has 4 observations, but 5 actions"),
    "no step": (np.zeros((0, 3)), np.zeros((0, 2)), r"observations are float64 of the shape \(0, 3\)"),
    "text": (np.full((4, 3), "x"), np.zeros((4, 2)), "expected numbers"),
    "nan": (np.full((4, 3), np.nan), np.zeros((4, 2)), "joints.shoulder is nan at step 0"),
    "overflow": (np.zeros((4, 3)), np.full((4, 2), 1e300), "action.shoulder is inf at step 0"),
}


@pytest.mark.parametrize("case", list(BAD_EPISODES))
def test_a_bad_episode_is_refused_by_name_and_the_others_can_be_kept(tmp_path: Path, case: str) -> None:
    observations, actions, message = BAD_EPISODES[case]
    path = tmp_path / "arm.zarr"
    with write_demonstrations(path, ARM) as writer:
        writer.append(*episode(5))
        with pytest.raises(StoreError, match=f"arm.zarr: episode bag_7.*{message}") as refused:
            writer.append(observations, actions, source="bag_7")
        writer.drop("bag_7", str(refused.value))
        writer.append(*episode(2))
        assert [source for source, _ in writer.dropped] == ["bag_7"]
    arrays, _ = read(path)
    np.testing.assert_array_equal(arrays["meta/episode_ends"], [5, 7])


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with write_demonstrations(tmp_path / "arm.zarr", ARM) as writer:
            writer.append(*episode(5))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not [entry for entry in tmp_path.iterdir() if entry.suffix != ".lock"]


def test_no_episode_is_no_store(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"arm\.zarr: no episode to write"),
        write_demonstrations(tmp_path / "arm.zarr", ARM) as writer,
    ):
        writer.drop("bag_1", "it is empty")
    assert not (tmp_path / "arm.zarr").exists()


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "arm.zarr").mkdir()
    with (
        pytest.raises(StoreError, match="is there already"),
        write_demonstrations(tmp_path / "arm.zarr", ARM),
    ):
        pass


def test_two_writers_of_one_store_are_refused(tmp_path: Path) -> None:
    with write_demonstrations(tmp_path / "arm.zarr", ARM) as writer:
        with (
            pytest.raises(StoreError, match="another process is writing it"),
            write_demonstrations(tmp_path / "arm.zarr", ARM),
        ):
            pass
        writer.append(*episode(5))
    assert (tmp_path / "arm.zarr").exists()


def interrupted(path: Path, origin: dict[str, Any], episodes: int) -> None:
    def run() -> None:
        with write_demonstrations(path, ARM, origin=origin) as writer:
            for number in range(episodes):
                writer.append(*episode(3, number), source=f"bag_{number}")
            writer.drop("bad", "it is bad")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()


def test_an_interrupted_run_goes_on_after_its_last_episode(tmp_path: Path) -> None:
    path, origin = tmp_path / "arm.zarr", {"source": "bags"}
    interrupted(path, origin, 4)
    assert not path.exists()
    with write_demonstrations(path, ARM, origin=origin) as writer:
        assert writer.sources == ["bag_0", "bag_1", "bag_2", "bag_3", "bad"]
        assert writer.dropped == [("bad", "it is bad")]
        assert writer.ends == [3, 6, 9, 12]
        writer.append(*episode(3, 4), source="bag_4")
    arrays, _ = read(path)
    np.testing.assert_array_equal(
        arrays["data/action"], np.concatenate([episode(3, number)[1] for number in range(5)])
    )


def test_an_episode_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    path, origin = tmp_path / "arm.zarr", {"source": "bags"}
    interrupted(path, origin, 2)
    folder = tmp_path / ".arm.zarr.partial"
    with open(folder / "steps.f32", "ab") as steps, open(folder / "episodes.jsonl", "a") as notes:
        steps.write(b"\x01" * 7)
        notes.write('{"end": 9, "so')
    with write_demonstrations(path, ARM, origin=origin) as writer:
        assert writer.ends == [3, 6]
        writer.append(*episode(3, 2))
    arrays, _ = read(path)
    np.testing.assert_array_equal(
        arrays["data/action"], np.concatenate([episode(3, number)[1] for number in range(3)])
    )


def test_another_origin_begins_anew(tmp_path: Path) -> None:
    interrupted(tmp_path / "arm.zarr", {"source": "bags"}, 2)
    with write_demonstrations(tmp_path / "arm.zarr", ARM, origin={"source": "others"}) as writer:
        assert writer.sources == []
        writer.append(*episode(1))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_write_demonstrations import ARM, episode
from training.data.write_demonstrations import write_demonstrations
with write_demonstrations(Path({path!r}), ARM, origin={{}}) as writer:
    for number in range(len(writer.sources), 10**6):
        writer.append(*episode(3, number), source=str(number))
"""


def test_a_killed_run_has_all_episodes_up_to_one(tmp_path: Path) -> None:
    path = tmp_path / "arm.zarr"
    program = KILLED.format(folder=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", program])
    notes = tmp_path / ".arm.zarr.partial" / "episodes.jsonl"
    while not notes.exists() or notes.stat().st_size < 300:
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    with write_demonstrations(path, ARM, origin={}) as writer:
        done = len(writer.sources)
        assert done >= 5
        assert isinstance(writer, EpisodeWriter)
    arrays, _ = read(path)
    np.testing.assert_array_equal(
        arrays["data/action"], np.concatenate([episode(3, number)[1] for number in range(done)])
    )
