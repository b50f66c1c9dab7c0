from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, PicardConfig, SamplerConfig, StopConfig
from training.command import load_config
from training.pcm.build_trajectories import BuildTrajectoriesConfig, main
from training.pcm.picard_trajectories import draw_samples, picard_trajectories
from training.pcm.trajectories import ARRAYS, Trajectories, TrajectoryError, load_trajectories, open_store

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same sums in the same order in every process


@pytest.fixture
def checkpoint(policy: DiffusionPolicy, tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    replace(policy, covariance=0.1 * torch.eye(32)).save(path)
    return path


@pytest.fixture
def arguments(checkpoint: Path, small_demonstrations: Path) -> list[str]:
    small = [
        "samples=10",
        "sampler.steps=4",
        "iterations=2",
        "batch_size=4",
        "held_out_episodes=1",
        "device=cpu",
    ]
    return [f"checkpoint={checkpoint}", f"demonstrations={small_demonstrations}", *small]


def load(path: Path) -> Trajectories:
    return load_trajectories(open_store(path))


def assert_equal(found: Trajectories, expected: Trajectories) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "training.pcm.build_trajectories", *args]


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("start", ["fresh", "repeated", "gaussian"])
@pytest.mark.parametrize("jacobian", ["drift", "preconditioned"])
def test_kth_trajectory_is_the_samplers_after_k_iterations(
    policy: DiffusionPolicy, jacobian: str, start: str, solver: str
) -> None:
    policy = replace(policy, covariance=0.1 * torch.eye(32))
    config = SamplerConfig("picard", solver, 5, picard=PicardConfig(jacobian, start))
    sampled = policy.with_sampler(config)
    conditions = torch.rand(7, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rows, noise = draw_samples(sampled, len(conditions), range(3), seed=1)
    condition = conditions[rows]
    states, solution = picard_trajectories(sampled, condition, noise, iterations=3)
    observations = policy.normalizer.observation.unnormalize(condition.view(3, 2, 20))
    exact = policy.with_sampler(SamplerConfig("sequential", solver, 5)).predict(
        observations, noise=noise[:, 0]
    )
    actions = policy.normalizer.action.normalize(exact.actions)
    torch.testing.assert_close(solution[:, -1], actions, atol=1e-5, rtol=0)
    assert torch.equal(states[:, :, 0], noise[:, :1].expand(-1, 4, -1, -1))
    if start == "fresh":  # predict draws its fresh noise itself
        assert torch.equal(states[:, 0], noise)
        return
    for k in range(1, 4):
        limited = policy.with_sampler(replace(config, stop=StopConfig(k)))
        picard = limited.predict(observations, noise=noise[:, 0])
        actions = policy.normalizer.action.normalize(picard.actions)
        torch.testing.assert_close(states[:, k, -1].clamp(-1, 1), actions, atol=1e-5, rtol=0)


def test_store_holds_finite_float32_samples_and_says_where_they_come_from(
    arguments: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "store.zarr"
    assert main([*arguments, f"output={output}"]) == 0
    assert "samples computed again differ by at most" in capsys.readouterr().out
    store = open_store(output)
    found = load(output)
    assert found.condition.shape == (10, 40)
    assert found.states.shape == (10, 3, 5, 16, 2)
    assert found.solution.shape == (10, 5, 16, 2)
    assert found.states.dtype == np.float32
    assert len(np.unique(found.solution[:, 0], axis=0)) == 10  # a noise of its own for each
    expected = {
        "solver": "dpmpp_2m",
        "seed": 0,
        "jacobian": "preconditioned",
        "start": "gaussian",
    }
    assert expected.items() <= store.identity.items()
    assert len(store.identity["base_sha256"]) == 64
    assert "code" in store.provenance


def test_killed_build_goes_on_without_a_duplicate_or_a_hole(arguments: list[str], tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.zarr", tmp_path / "cut.zarr"
    more = ["samples=400"]
    subprocess.run(command(*arguments, *more, f"output={whole}"), check=True, env=ENVIRONMENT)
    process = subprocess.Popen(command(*arguments, *more, f"output={cut}"), env=ENVIRONMENT)
    while not (cut.exists() and open_store(cut).is_whole(3)):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(TrajectoryError, match=r"samples \d+ to \d+ are not there yet; run the command"):
        load(cut)
    subprocess.run(command(*arguments, *more, f"output={cut}"), check=True, env=ENVIRONMENT)
    assert_equal(load(cut), load(whole))


def test_two_processes_write_the_store_of_one(arguments: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one.zarr", tmp_path / "two.zarr"
    subprocess.run(command(*arguments, f"output={one}"), check=True, env=ENVIRONMENT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "training.pcm.build_trajectories", *arguments, f"output={two}"],
        check=True,
        env=ENVIRONMENT,
    )
    assert_equal(load(two), load(one))


@pytest.mark.parametrize("damage", ["lost", "truncated", "swapped"])
def test_damaged_samples_are_refused_and_repaired(
    arguments: list[str], tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "store.zarr"
    assert main([*arguments, f"output={output}"]) == 0
    expected = load(output)
    first, second = sorted(path for path in (output / "states").rglob("*") if _is_chunk(path))[:2]
    if damage == "lost":
        first.unlink()
    elif damage == "truncated":
        first.write_bytes(first.read_bytes()[:100])
    else:
        shutil.copy(second, first)
    with pytest.raises(TrajectoryError, match=r"store\.zarr: samples 0 to 3 (are damaged|cannot be decoded)"):
        load(output)
    assert main([*arguments, f"output={output}"]) == 0
    assert_equal(load(output), expected)


def _is_chunk(path: Path) -> bool:
    return path.is_file() and path.name not in ("zarr.json", ".zarray", ".zattrs")


def test_store_of_other_settings_or_another_checkpoint_is_refused_and_kept(
    arguments: list[str],
    checkpoint: Path,
    policy: DiffusionPolicy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "store.zarr"
    assert main([*arguments, f"output={output}"]) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert main([*arguments, f"output={output}", "sampler.solver=ddim"]) == 1
    assert "holds trajectories with solver=dpmpp_2m, not solver=ddim" in capsys.readouterr().err
    assert main([*arguments, f"output={output}", "seed=1"]) == 1
    assert "holds trajectories with seed=0, not seed=1; choose another output" in capsys.readouterr().err
    with torch.no_grad():
        next(policy.network.parameters()).add_(1)
    replace(policy, covariance=0.1 * torch.eye(32)).save(checkpoint)
    assert main([*arguments, f"output={output}"]) == 1
    assert "holds trajectories with base_sha256=" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_something_else_than_a_store_is_refused_and_kept(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "store.zarr"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    assert main([*arguments, f"output={output}"]) == 1
    assert "store.zarr: not a readable store of trajectories" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["precious.txt"]


def test_more_iterations_than_are_exact_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"output={tmp_path / 'store.zarr'}", "iterations=4"]) == 1
    assert "iterations must be in 1 … 3, which is exact, got 4" in capsys.readouterr().err
    assert main([*arguments, f"output={tmp_path / 'store.zarr'}", "sampler.solver=ddpm"]) == 1
    assert "the method picard needs a deterministic solver" in capsys.readouterr().err
    assert main([*arguments, f"output={tmp_path / 'store.zarr'}", "sampler.parallel.window=2"]) == 1
    assert "the trajectories are those of plain Picard iteration" in capsys.readouterr().err
    assert not (tmp_path / "store.zarr").exists()


def test_presets_papers_settings_fit_into_a_gigabyte() -> None:
    required = ["demonstrations=x", "output=x"]
    paper = load_config("build_trajectories", BuildTrajectoriesConfig, [*required, "preset=paper"])
    assert (paper.samples, paper.sampler.steps, paper.iterations) == (2000, 50, 30)
    assert paper.sampler.picard == PicardConfig("drift", "fresh")
    assert (
        load_config("build_trajectories", BuildTrajectoriesConfig, required).sampler.steps == 5
    )  # preset=fast
    states = (
        paper.samples * (paper.iterations + 1 + 1) * (paper.sampler.steps + 1)
    )  # those of X⁰ … X^K and X*
    assert states * 16 * 2 * np.dtype(np.float32).itemsize < 1e9


def test_stores_of_warm_starts_hold_both_kinds_and_repeat_themselves(
    arguments: list[str], tmp_path: Path
) -> None:
    warm = ["samples=64", "batch_size=16", "sampler.parallel.warm_start=actions", "before.cold_share=0.3"]
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    assert main([*arguments, *warm, f"output={one}"]) == 0  # which computes samples again, one by one
    executed = load(one).executed
    assert set(executed) <= set(range(9))
    assert 0.1 < (executed == 0).mean() < 0.7
    assert open_store(one).identity["warm_start"] == "actions"
    assert main([*arguments, *warm, f"output={other}", "before.disturbance=0"]) == 0
    before, after = load(one), load(other)
    changed = (before.states != after.states).any((1, 2, 3, 4))
    assert 0.2 < changed[executed > 0].mean() < 0.8  # the half of the chunks before that get noise
    assert not changed[executed == 0].any()
    np.testing.assert_array_equal(before.solution, after.solution)  # the answer does not depend on the start
