from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_recordings import (
    LENGTHS,
    Columns,
    arm,
    commands,
    gripper,
    lerobot_columns,
    steps_of,
    write_lerobot,
)

from training.importing import parquet_rows
from training.importing.import_demonstrations import ImportConfig, import_demonstrations
from training.importing.parquet_rows import TableReader
from training.importing.recording import EpisodeError, RecordingError

VERSIONS = ["v2.1", "v3.0"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("batch_rows", [2, 4096])
def test_every_row_comes_back(
    tmp_path: Path, imported: Any, monkeypatch: pytest.MonkeyPatch, version: str, batch_rows: int
) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_ROWS", batch_rows)
    found, arrays = imported(write_lerobot(tmp_path / "koch", version))
    steps = np.arange(sum(LENGTHS), dtype=np.float64)
    np.testing.assert_array_equal(arrays["data/state"], arm(steps))
    np.testing.assert_array_equal(arrays["data/gripper_width"], gripper(steps))
    np.testing.assert_array_equal(arrays["data/action"], commands(steps))
    np.testing.assert_array_equal(arrays["meta/episode_ends"], np.cumsum(LENGTHS))
    assert {values.dtype for name, values in arrays.items() if "data" in name} == {np.dtype("f4")}
    task = found.recording.task
    assert (task.name, task.rate, task.action.names) == ("koch", 10.0, ("shoulder", "elbow"))
    assert task.number_names == ("state.shoulder", "state.elbow", "gripper_width.0")
    assert list(found.recording.left_out) == ["observation.images.front (video)"]


def test_parts_can_be_chosen_and_ordered(tmp_path: Path, imported: Any) -> None:
    source = write_lerobot(tmp_path / "source", "v2.1")
    found, arrays = imported(
        source, parts=["gripper_width", "observation.state"], actions="observation.state", task_name="reach"
    )
    assert list(found.recording.task.slices) == ["gripper_width", "state"]
    assert found.recording.task.name == "reach"
    np.testing.assert_array_equal(arrays["data/action"], arrays["data/state"])


def replaced(name: str, values: Callable[[Columns], Any]) -> Callable[[Columns], None]:
    return lambda columns: columns.update({name: values(columns)})


def changed(name: str, row: int, value: Any) -> Callable[[Columns], None]:
    """One value of a column of numbers."""

    def change(columns: Columns) -> None:
        values = columns[name].to_pylist()
        values[row] = value
        columns[name] = pa.array(values, columns[name].type)

    return change


DAMAGES = {
    "nan": (changed("action", 2, [0.0, float("nan")]), r"column 'action' is nan in row 2 \(elbow\)"),
    "infinite": (
        changed("observation.state", 0, [float("inf"), 0.0]),
        r"'observation.state' is inf in row 0",
    ),
    "missing number": (changed("observation.gripper.width", 1, None), "width' lacks 1 of its numbers"),
    "missing row": (changed("action", 1, None), "column 'action' is empty in 1 of its rows"),
    "longer row": (changed("action", 3, [1.0, 2.0, 3.0]), "'action' has 3 numbers in row 3"),
    "backwards": (changed("timestamp", 3, 0.05), "'timestamp' runs backwards: 0.05 s in row 3 after 0.2 s"),
    "standing": (changed("timestamp", 3, 0.2), "'timestamp' runs backwards"),
    "gap": (changed("timestamp", 3, 0.9), "'timestamp' does not keep 10 Hz: 0.7 s from row 2 to row 3"),
    "time that is none": (changed("timestamp", 1, float("nan")), "'timestamp' is nan in row 1"),
    "lost frame": (changed("frame_index", 3, 4), "'frame_index' is 4 in row 3, expected 3"),
    "another episode": (changed("episode_index", 0, 7), "'episode_index' is 7 in row 0, expected 1"),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_episode_is_named_and_can_be_left_out(
    tmp_path: Path, imported: Any, damage: Callable[[Columns], None], message: str, *, version: str
) -> None:
    source = write_lerobot(
        tmp_path / "source", version, lambda episode, columns: damage(columns) if episode == 1 else None
    )
    with pytest.raises(EpisodeError, match=message) as caught:
        imported(source)
    assert str(caught.value).startswith(f"{source}/data/chunk-000/")
    assert ": episode 1: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()

    found, arrays = imported(source, skip_bad=True)
    assert found.bad_episodes == 1
    np.testing.assert_array_equal(arrays["meta/episode_ends"], np.cumsum([LENGTHS[0], LENGTHS[2]]))
    kept = np.concatenate([steps_of(0), steps_of(2)])
    np.testing.assert_array_equal(arrays["data/state"], arm(kept))


TABLES = {
    "text": (replaced("action", lambda c: pa.array(["a"] * len(c["action"]))), "'action' holds string"),
    "pictures": (replaced("action", lambda c: pa.array([b"a"] * len(c["action"]))), "'action' holds binary"),
    "other width": (
        replaced("action", lambda c: pa.array([[1.0, 2.0, 3.0]] * len(c["action"]))),
        "'action' has 3 numbers in a row, need 2",
    ),
    "scalars": (replaced("action", lambda c: c["timestamp"]), "'action' has 1 numbers in a row, need 2"),
    "no column": (lambda c: c.pop("action"), "column 'action' is missing, there are observation.state"),
}


@pytest.mark.parametrize(("damage", "message"), TABLES.values(), ids=TABLES)
def test_a_table_of_other_columns_is_named(
    tmp_path: Path, imported: Any, damage: Callable[[Columns], None], message: str
) -> None:
    source = write_lerobot(
        tmp_path / "source", "v2.1", lambda episode, columns: damage(columns) if episode == 1 else None
    )
    with pytest.raises(EpisodeError, match=f"episode_000001.parquet: episode 1: .*{message}"):
        imported(source)
    found, arrays = imported(source, skip_bad=True)
    assert found.bad_episodes == 1
    assert len(arrays["meta/episode_ends"]) == 2


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def damage_pages(file: Path) -> None:
    """Leaves the footer as it is."""
    content = bytearray(file.read_bytes())
    content[4:200] = b"\xff" * 196
    file.write_bytes(content)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "cannot be read"),
        (damage_pages, "cannot be read"),
        (Path.unlink, "no such file"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: pq.write_table(pa.table(lerobot_columns(2)).slice(0, 3), file), "has 3 rows"),
    ],
    ids=["truncated", "damaged", "missing", "empty", "short"],
)
def test_a_damaged_table_is_named_and_can_be_left_out(
    tmp_path: Path, imported: Any, version: str, *, damage: Callable[[Path], Any], message: str
) -> None:
    source = write_lerobot(tmp_path / "source", version)
    table = sorted((source / "data/chunk-000").iterdir())[-1]
    damage(table)
    with pytest.raises(EpisodeError, match=f"{table}: episode 2: .*{message}"):
        imported(source)
    found, arrays = imported(source, skip_bad=True)
    assert found.bad_episodes == 1
    np.testing.assert_array_equal(arrays["data/state"], arm(np.arange(9.0)))


def test_episodes_after_a_damaged_place_of_a_shared_table_are_read(tmp_path: Path, imported: Any) -> None:
    source = write_lerobot(tmp_path / "source", "v3.0")
    file = source / "data/chunk-000/file-000.parquet"
    column = pq.ParquetFile(file).metadata.row_group(0).column(0)
    content = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(content)
    found, arrays = imported(source, skip_bad=True)
    # The first group has 4 rows, so that episode 1 (rows 5 … 8) is behind it.
    assert [name for name, _ in found.dropped] == ["0"]
    np.testing.assert_array_equal(arrays["data/state"], arm(np.arange(5.0, 15.0)))


def info_with(**values: Any) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        file = source / "meta/info.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


WHOLE = {
    "no info": (lambda source: (source / "meta/info.json").unlink(), "info.json: no such file"),
    "no JSON": (lambda source: (source / "meta/info.json").write_text("{"), "info.json: not JSON"),
    "a list": (lambda source: (source / "meta/info.json").write_text("[]"), "info.json: must be an object"),
    "no text": (lambda source: (source / "meta/info.json").write_bytes(b"\xff"), "info.json: not a text"),
    "old version": (
        info_with(codebase_version="v2.0"),
        "info.json: version 'v2.0' is unknown, known are v2.1, v3.0",
    ),
    "new version": (info_with(codebase_version="v4.0"), "version 'v4.0' is unknown"),
    "no rate": (info_with(fps=0), "info.json: fps must be in 0.001 … 10000, got 0"),
    "no features": (info_with(features=None), "info.json: features must be an object"),
    "endless shape": (
        info_with(features={"action": {"dtype": "float32", "shape": [2**40]}}),
        "feature 'action' has the shape",
    ),
    "no action": (
        info_with(features={"observation.state": {"dtype": "float32", "shape": [2]}}),
        "info.json: no column 'action' of numbers, there are observation.state",
    ),
    "no observation": (
        info_with(features={"action": {"dtype": "float32", "shape": [2]}}),
        "info.json: no observation of numbers",
    ),
    "same part": (
        info_with(
            features={
                name: {"dtype": "float32", "shape": [2]}
                for name in ("action", "observation.a.b", "observation.a_b")
            }
        ),
        "observation.a.b and observation.a_b would both be the part 'a_b'; choose by parts=",
    ),
    "path out": (info_with(data_path="../{episode_index}.parquet"), "data_path '../.*' leads out"),
    "path attribute": (info_with(data_path="{episode_index.real}.parquet"), "no such file"),
    "path field": (info_with(data_path="{nothing}.parquet"), "data_path has {nothing}, allowed are"),
    "too many": (info_with(total_episodes=10**12), "total_episodes is 10*, at most"),
}


@pytest.mark.parametrize(("damage", "message"), WHOLE.values(), ids=WHOLE)
def test_metadata_that_cannot_be_used_are_named(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    source = write_lerobot(tmp_path / "source", "v2.1")
    damage(source)
    with pytest.raises((RecordingError, EpisodeError), match=message) as caught:
        import_demonstrations(ImportConfig(source=str(source), output=str(tmp_path / "out.zarr")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"parts": ["elbow"]}, "no part 'elbow', there are observation.state, observation.gripper.width"),
        (
            {"parts": ["observation.images.front"]},
            "column 'videos/observation.images.front/chunk_index' is missing",
        ),
        ({"parts": ["observation.images.back"]}, "no part 'observation.images.back'"),
        ({"parts": ["state", "state"]}, "names the part 'state' twice"),
        ({"actions": "actions"}, "no column 'actions' of numbers"),
        ({"rate": 30.0}, "fps is 10, rate=30 cannot be kept"),
        ({"robot": "robot.yaml"}, "robot=… and split=… are for bags"),
        ({"split": "gaps"}, "robot=… and split=… are for bags"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(tmp_path: Path, choice: dict[str, Any], message: str) -> None:
    source = write_lerobot(tmp_path / "source", "v3.0")
    with pytest.raises(RecordingError, match=message):
        import_demonstrations(ImportConfig(source=str(source), output=str(tmp_path / "out.zarr"), **choice))


def test_episodes_that_no_list_has_are_bad_ones(tmp_path: Path, imported: Any) -> None:
    source = write_lerobot(tmp_path / "source", "v2.1")
    info_with(total_episodes=4)(source)
    with pytest.raises(EpisodeError, match=r"info\.json: episode 3 of 4 is not in the list of episodes"):
        imported(source)
    found, _ = imported(source, skip_bad=True)
    assert found.bad_episodes == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dataset_without_episodes_is_refused(tmp_path: Path, imported: Any, version: str) -> None:
    source = write_lerobot(tmp_path / "source", version)
    info_with(total_episodes=0)(source)
    if version == "v2.1":
        (source / "meta/episodes.jsonl").write_text("")
        message = "source: no episode can be imported"
    else:
        (source / "meta/episodes/chunk-000/file-000.parquet").unlink()
        message = "meta/episodes: no tables of episodes"
    with pytest.raises(RecordingError, match=message):
        imported(source, skip_bad=True)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "episodes.jsonl: line 4 not JSON"),
        ('{"episode_index": 1, "length": 4}', "episodes.jsonl: episode 1 is there twice"),
        ('{"episode_index": 3}', "line 4: length must be a whole number, got None"),
        ('{"episode_index": 2.5, "length": 4}', "line 4: episode_index must be a whole number, got 2.5"),
    ],
)
def test_a_bad_line_of_the_list_of_episodes_is_named(
    tmp_path: Path, imported: Any, line: str, message: str
) -> None:
    source = write_lerobot(tmp_path / "source", "v2.1")
    with (source / "meta/episodes.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RecordingError, match=message):
        imported(source)


def test_a_long_table_is_read_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "BATCH_ROWS", 10)
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": np.arange(1000)}), file, row_group_size=100)
    decoded = 0
    iter_batches = pq.ParquetFile.iter_batches

    def counting(self: Any, **options: Any) -> Any:
        nonlocal decoded
        for batch in iter_batches(self, **options):
            decoded += batch.num_rows
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    reader = TableReader({"a": 1})
    for first in range(0, 1000, 25):
        rows = reader.rows(file, first=first, count=25)
        np.testing.assert_array_equal(rows["a"][:, 0], np.arange(first, first + 25))
        assert decoded <= first + 25 + 10
    assert reader.rows(file, first=950, count=1)["a"] == [[950]]
    assert decoded <= 1000 + 100


def test_memory_holds_one_row_group_of_a_long_table(tmp_path: Path) -> None:
    file = tmp_path / "table.parquet"
    values = np.random.default_rng(0).random(200_000)
    pq.write_table(pa.table({"a": values}), file, row_group_size=4000)
    del values
    before, most = pa.total_allocated_bytes(), 0
    reader = TableReader({"a": 1})
    for first in range(0, 200_000, 1000):
        reader.rows(file, first=first, count=1000)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 200_000 * 8 / 4
