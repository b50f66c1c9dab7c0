from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_recordings import ROBOT, arm, bag_messages, write_bag, write_hdf5, write_lerobot

from training.data.demonstrations import load_demonstrations
from training.data.write_demonstrations import EpisodeWriter
from training.importing import import_demonstrations as command
from training.importing.import_demonstrations import ImportConfig, import_demonstrations
from training.importing.recording import EpisodeError, Recording, RecordingError


def cut_bag(folder: Path) -> dict[str, Any]:
    """A bag that is cut into three."""
    robot = folder / "robot.yaml"
    robot.write_text(ROBOT)
    sent = [one for one in bag_messages(30) if one[0] * 10 // 10**9 % 10 < 4]
    return {"source": str(write_bag(folder / "bag", sent)), "robot": str(robot), "split": "gaps"}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "lerobot v2.1": lambda folder: {"source": str(write_lerobot(folder / "source", "v2.1"))},
    "lerobot v3.0": lambda folder: {"source": str(write_lerobot(folder / "source", "v3.0"))},
    "hdf5": lambda folder: {"source": str(write_hdf5(folder / "source.hdf5"))},
    "bag": cut_bag,
}


def spy_on_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recorded episodes that are read from now on."""
    read: list[str] = []
    opened = command.open_recording

    def open_recording(*arguments: Any) -> Recording:
        recording = opened(*arguments)
        reading = recording.read

        def spy(index: int, advance: Any) -> Any:
            read.append(recording.episodes[index])
            return reading(index, advance)

        object.__setattr__(recording, "read", spy)
        return recording

    monkeypatch.setattr(command, "open_recording", open_recording)
    return read


def killed_after(config: ImportConfig, episodes: int) -> None:
    """Imports in a process that is killed when so many episodes are written."""
    append = EpisodeWriter.append

    def append_or_die(self: EpisodeWriter, *arguments: Any, **options: Any) -> None:
        if len(self.ends) == episodes:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, *arguments, **options)

    EpisodeWriter.append = append_or_die  # type: ignore[method-assign]
    import_demonstrations(config)


def kill(config: ImportConfig, episodes: int) -> None:
    process = multiprocessing.get_context("fork").Process(target=killed_after, args=(config, episodes))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not Path(config.output).exists()


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_killed_import_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Callable[[Path], dict[str, Any]]
) -> None:
    options = source(tmp_path)
    whole = import_demonstrations(ImportConfig(**options, output=str(tmp_path / "whole.zarr")))
    assert len(whole.ends) == 3
    config = ImportConfig(**options, output=str(tmp_path / "out.zarr"))
    kill(config, 1)
    kill(config, 2)
    read = spy_on_reads(monkeypatch)
    resumed = import_demonstrations(config)
    # The last one that was begun is read again, in case that it has more.
    assert read == list(whole.recording.episodes)[-2:]
    assert (resumed.ends, resumed.dropped) == (whole.ends, whole.dropped)
    one, other = (load_demonstrations(imported.path) for imported in (whole, resumed))
    assert one.sha256 == other.sha256
    np.testing.assert_array_equal(one.observations, other.observations)
    assert one.task == other.task == whole.recording.task
    assert [path.name for path in tmp_path.glob(".out.zarr*")] == [".out.zarr.lock"]


def spoiled(folder: Path) -> ImportConfig:
    """A dataset whose second episode is damaged."""

    def damage(episode: int, columns: dict[str, Any]) -> None:
        if episode == 1:
            columns["action"] = pa.array(["text"] * 4)

    return ImportConfig(
        source=str(write_lerobot(folder / "source", "v2.1", damage)), output=str(folder / "out.zarr")
    )


def test_an_import_that_failed_goes_on_without_the_bad_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = spoiled(tmp_path)
    with pytest.raises(EpisodeError, match=r"episode 1: .* \(skip_bad=true imports the others\)"):
        import_demonstrations(config)
    read = spy_on_reads(monkeypatch)
    found = import_demonstrations(ImportConfig(source=config.source, output=config.output, skip_bad=True))
    assert read == ["0", "1", "2"]
    assert (found.ends, found.bad_episodes) == ((5, 11), 1)


def test_a_killed_import_without_bad_episodes_is_not_gone_on_with_as_if_it_were_whole(tmp_path: Path) -> None:
    config = spoiled(tmp_path)
    kill(ImportConfig(source=config.source, output=config.output, skip_bad=True), 1)
    with pytest.raises(EpisodeError, match="episode 1: column 'action' holds string"):
        import_demonstrations(config)


def test_a_recording_that_has_changed_is_imported_anew(tmp_path: Path) -> None:
    source = write_lerobot(tmp_path / "source", "v2.1")
    config = ImportConfig(source=str(source), output=str(tmp_path / "out.zarr"))
    kill(config, 2)
    for file in sorted(source.rglob("*.parquet")):
        os.utime(file, ns=(0, 0))
    kill(config, 1)  # begins with the first
    assert len(import_demonstrations(config).ends) == 3


def test_the_report_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shut(episode: int, columns: dict[str, Any]) -> None:
        columns["observation.gripper.width"] = pa.array(np.full(len(columns["index"]), 0.5))
        if episode == 2:
            columns["action"] = pa.array(["text"] * len(columns["index"]))

    source, output = write_lerobot(tmp_path / "source", "v2.1", shut), tmp_path / "out.zarr"
    assert command.main([f"source={source}", f"output={output}", "skip_bad=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = arm(np.arange(9.0))[:, 0]
    assert lines[:2] == [
        f"{source}: LeRobot v2.1",
        "2 episodes of 4 … 5 steps, 9 steps at 10 Hz, 0.9 s",
    ]
    assert lines[2].split() == ["state.shoulder", f"{values.min():.4g}", "…", f"{values.max():.4g}"]
    assert lines[4].split() == ["gripper_width.0", "0.5", "…", "0.5", "never", "varies"]
    table = source / "data/chunk-000/episode_000002.parquet"
    assert lines[-4:] == [
        "left out: observation.images.front (video)",
        "1 episode could not be imported",
        f"dropped 2: {table}: episode 2: column 'action' holds string, allowed are numbers",
        f"written: {output}",
    ]


def test_gaps_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = cut_bag(tmp_path)
    arguments = [f"{key}={value}" for key, value in options.items()]
    assert command.main([*arguments, f"output={tmp_path / 'out.zarr'}"]) == 0
    out = capsys.readouterr().out
    assert "3 episodes of 4 steps, 12 steps at 10 Hz, 1.2 s" in out
    assert "\n2 gaps\n" in out
    assert "dropped bag#0 gap: after 1700000000.300 s: topic joint_states is silent for 0.7 s\n" in out


def test_where_a_store_comes_from_is_in_its_attributes(tmp_path: Path) -> None:
    import_demonstrations(ImportConfig(**SOURCES["hdf5"](tmp_path), output=str(tmp_path / "out.zarr")))
    attributes = (tmp_path / "out.zarr" / ".zattrs").read_text()
    for expected in (
        '"format": "HDF5 of robomimic"',
        '"source": "source.hdf5"',
        '"bad_episodes": 0',
        '"sha256"',
    ):
        assert expected in attributes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file or folder"),
        (lambda path: path.mkdir(), "of no known format: LeRobot has meta/info.json"),
        (lambda path: path.write_text("text"), "of no known format"),
        (lambda path: (path / "meta").mkdir(parents=True), "meta/info.json: no such file"),
    ],
)
def test_a_source_of_no_known_format_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, make: Callable[[Path], Any], message: str
) -> None:
    make(tmp_path / "source")
    arguments = [f"source={tmp_path / 'source'}", f"output={tmp_path / 'out.zarr'}"]
    assert command.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*out.zarr*"))


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.zarr"
    output.mkdir()
    arguments = [f"source={write_lerobot(tmp_path / 'source', 'v2.1')}", f"output={output}"]
    assert command.main(arguments) == 1
    assert "out.zarr is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rate": 0.0}, "rate must be in 0.001 … 10000 Hz, got 0"),
        ({"output": "out"}, "output must end with .zarr, got 'out'"),
    ],
)
def test_options_that_cannot_be_are_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportConfig(**{"source": "source", "output": "out.zarr", **option})


def test_a_recording_without_any_good_episode_names_the_first_reason(tmp_path: Path) -> None:
    def damage(episode: int, columns: dict[str, Any]) -> None:
        del columns["action"]

    source = write_lerobot(tmp_path / "source", "v2.1", damage)
    with pytest.raises(
        RecordingError, match=r"source: no episode can be imported: .*episode 0: column 'action' is"
    ):
        import_demonstrations(
            ImportConfig(source=str(source), output=str(tmp_path / "out.zarr"), skip_bad=True)
        )
