from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy import DiffusionPolicy
from training.benchmark.measure import OUTPUTS as BENCHMARK
from training.evaluation import evaluate
from training.output_dir import (
    HOLDER,
    LOCK,
    MARKER,
    Outputs,
    check_output_dir,
    claim_output_dir,
    locked_output_dir,
)
from training.pcm.train_pcm import OUTPUTS as TRAIN_PCM
from training.policy import train_policy
from training.policy.train_policy import OUTPUTS as TRAIN_POLICY

ALL = (BENCHMARK, evaluate.OUTPUTS, TRAIN_PCM, TRAIN_POLICY)


@pytest.mark.parametrize("outputs", ALL, ids=lambda outputs: outputs.command)
@pytest.mark.parametrize(
    "name", ["policy.safetensors", "thesis.tex", ".bashrc", ".notes.tmp", "log.csv", "summary.json", "a/b"]
)
def test_foreign_directories_are_refused_and_kept(outputs: Outputs, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(
        ValueError, match=rf"{tmp_path} is not made by {outputs.command} and holds '.*; choose"
    ):
        check_output_dir(tmp_path, outputs)
    with (
        pytest.raises(ValueError, match="or overwrite=true"),
        locked_output_dir(tmp_path, outputs),
    ):
        pass
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    check_output_dir(tmp_path, outputs, overwrite=True)


def test_a_directory_is_the_command_s_that_marked_it(tmp_path: Path) -> None:
    claim_output_dir(tmp_path, TRAIN_PCM, {"rank": 4})
    (tmp_path / "notes.txt").write_text("mine")
    check_output_dir(tmp_path, TRAIN_PCM)
    with pytest.raises(ValueError, match=r"is made by pcm-train-pcm and holds 'notes\.txt'; choose another"):
        check_output_dir(tmp_path, TRAIN_POLICY)
    marker = json.loads((tmp_path / MARKER).read_text())
    assert marker["command"] == "pcm-train-pcm"
    assert marker["identity"] == {"rank": 4}


def test_empty_and_missing_directories_are_anyone_s(tmp_path: Path) -> None:
    for outputs in ALL:
        check_output_dir(tmp_path, outputs)
        check_output_dir(tmp_path / "missing", outputs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "[" * 100000])
def test_a_damaged_marker_is_none(damage: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(damage)
    check_output_dir(tmp_path, TRAIN_POLICY)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not made by pcm-train-policy"):
        check_output_dir(tmp_path, TRAIN_POLICY)


HOLD = """
import sys, time
from pathlib import Path
from training.output_dir import locked_output_dir
from training.policy.train_policy import OUTPUTS
with locked_output_dir(Path(sys.argv[1]), OUTPUTS):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in `tmp_path`, as far as its lock is concerned."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "locked\n"
        yield held
        held.kill()


def test_the_second_of_two_trainings_says_who_has_the_directory(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    message = rf"{tmp_path} is in use by process {holder.pid} on \S+ \(pcm-train-policy\); wait for its end"
    with pytest.raises(RuntimeError, match=message), locked_output_dir(tmp_path, TRAIN_POLICY):
        pass
    assert json.loads((tmp_path / HOLDER).read_text())["process"] == holder.pid


def test_who_has_just_taken_the_lock_has_time_to_write_its_name(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    name = (tmp_path / HOLDER).read_text()
    (tmp_path / HOLDER).unlink()
    writes = threading.Timer(0.3, lambda: (tmp_path / HOLDER).write_text(name))
    writes.start()
    with (
        pytest.raises(RuntimeError, match=f"in use by process {holder.pid} on"),
        locked_output_dir(tmp_path, TRAIN_POLICY),
    ):
        pass
    writes.join()


def test_the_name_of_a_dead_process_is_not_said(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.output_dir.SECONDS_TO_SAY_WHO", 0.1)
    with subprocess.Popen(["true"]) as dead:
        pass
    held = json.loads((tmp_path / HOLDER).read_text())
    (tmp_path / HOLDER).write_text(json.dumps({**held, "process": dead.pid}))
    with (
        pytest.raises(RuntimeError, match="in use by another process"),
        locked_output_dir(tmp_path, TRAIN_POLICY),
    ):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    assert (tmp_path / LOCK).exists()
    with locked_output_dir(tmp_path, TRAIN_POLICY):
        assert json.loads((tmp_path / HOLDER).read_text())["process"] == os.getpid()


TINY = [
    "policy.down_dims=[8,16]",
    "policy.step_embed_dim=8",
    "policy.n_groups=4",
    "rollout_episodes=0",
    "held_out_episodes=1",
    "training.batch_size=8",
    "training.steps=400",
    "training.log_every=5",
    "training.checkpoint_every=5",
    "training.validate_every=20",
]


def test_of_two_trainings_started_at_once_one_wins_and_the_other_says_so(
    small_demonstrations: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "training.policy.train_policy",
        f"demonstrations={small_demonstrations}",
        "task=pusht",
    ]
    command += [f"output_dir={tmp_path}/out", *TINY]
    pair = [
        subprocess.Popen(
            [*command, f"training.seed={seed}"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for seed in (1, 2)
    ]
    errors = [process.communicate()[1] for process in pair]
    codes = [process.returncode for process in pair]
    assert sorted(codes) == [0, 1], errors
    winner, loser = pair[codes.index(0)], errors[codes.index(1)].strip().splitlines()[-1]
    # The other one came while it trained, or at least after it had saved its state.
    busy = f"error: {tmp_path}/out is in use by process {winner.pid} on "
    assert loser.startswith(busy) or "belongs to a run with seed=" in loser
    seed = 1 + codes.index(0)
    assert DiffusionPolicy.load(tmp_path / "out" / "policy.safetensors").provenance["seed"] == seed


def test_a_training_keeps_foreign_files(
    small_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once refused, and if insisted on, nothing goes but what it writes itself."""
    (tmp_path / ".notes.tmp").write_text("mine")
    (tmp_path / ".thesis.123.tmp.tex").write_text("mine")
    (tmp_path / "log.csv").write_text("mine")
    arguments = [
        f"demonstrations={small_demonstrations}",
        "task=pusht",
        f"output_dir={tmp_path}",
        *TINY,
        "training.steps=5",
    ]
    assert train_policy.main(arguments) == 1
    assert "or overwrite=true to write into it all the same" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 3
    assert train_policy.main([*arguments, "overwrite=true"]) == 0
    assert (tmp_path / ".notes.tmp").read_text() == (tmp_path / ".thesis.123.tmp.tex").read_text() == "mine"
    assert train_policy.main(arguments) == 0


def test_an_evaluation_is_refused_before_its_episodes_and_repeated_in_its_own_directory(
    policy: DiffusionPolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.save(tmp_path / "policy.safetensors")
    options = ["sampler.steps=2", "episodes=1", "max_steps=2", "recorded_episodes=0"]
    arguments = [f"checkpoint={tmp_path}/policy.safetensors", *options]
    assert evaluate.main([*arguments, f"output_dir={tmp_path}"]) == 1
    assert "holds 'policy.safetensors'; choose another output_dir, or overwrite" in capsys.readouterr().err
    out = tmp_path / "out"
    for _ in range(2):
        assert evaluate.main([*arguments, f"output_dir={out}"]) == 0
    (out / MARKER).unlink()  # as it was before there were markers
    assert evaluate.main([*arguments, f"output_dir={out}"]) == 0


def test_a_training_of_before_there_were_markers_goes_on(small_demonstrations: Path, tmp_path: Path) -> None:
    arguments = [
        f"demonstrations={small_demonstrations}",
        "task=pusht",
        f"output_dir={tmp_path}",
        *TINY,
        "training.steps=5",
    ]
    assert train_policy.main(arguments) == 0
    for name in (MARKER, LOCK):
        (tmp_path / name).unlink()
    assert train_policy.main(arguments) == 0
    assert (tmp_path / MARKER).exists()
