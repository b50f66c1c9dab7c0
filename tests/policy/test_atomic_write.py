from __future__ import annotations

from pathlib import Path

import pytest

from policy.atomic_write import atomic_write


def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as temporary:  # noqa: PT012, the point is when
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_changes_at_the_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_is_hidden_and_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "episodes.of_a_day.mp4") as temporary:
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".mp4"
        temporary.touch()


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "run" / "summary.json"
    with atomic_write(path) as temporary:
        temporary.write_text("{}")
    assert path.read_text() == "{}"


def test_a_full_disk_is_named_by_the_file_that_did_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"), atomic_write(path) as temporary:  # noqa: PT012, the point is when
        temporary.symlink_to("/dev/full")
        temporary.write_text("rows")
    assert not list(tmp_path.iterdir())
