from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from policy import DiffusionPolicy, PicardConfig, SamplerConfig, StopConfig
from policy.pcm import load_pcm, save_pcm
from training.pcm.build_trajectories import main as build
from training.pcm.start_kinds import error_p95
from training.pcm.train_pcm import main
from training.pcm.trajectories import ARRAYS, load_trajectories, open_store
from training.training_state import save_state

T, K = 5, 3
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same sums in the same order in every process
SMALL = [
    "device=cpu",
    "epochs=10",
    "rank=2",
    "iterations=null",
    "base_iterations=0",
    "loss_weight=constant",
    "floor=0",
    "start_model=base",
    "held_out_samples=8",
    "validated_iterations=2",
    "training.batch_size=8",
    "training.warmup_steps=0",
    "training.log_every=2",
    "training.checkpoint_every=2",
    "training.validate_every=10",
]


@pytest.fixture(scope="module")
def arguments(
    untrained: DiffusionPolicy, small_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    directory = tmp_path_factory.mktemp("trajectories")
    checkpoint, store = directory / "base.safetensors", directory / "store.zarr"
    replace(untrained, covariance=0.1 * torch.eye(32)).save(checkpoint)
    small = [
        "samples=40",
        f"sampler.steps={T}",
        f"iterations={K}",
        "batch_size=8",
        "held_out_episodes=1",
        "device=cpu",
    ]
    both = f"checkpoint={checkpoint}"
    assert build([both, f"demonstrations={small_demonstrations}", f"output={store}", *small]) == 0
    return [both, f"trajectories={store}", *SMALL]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "training.pcm.train_pcm", *args]


def log(output_dir: Path) -> list[dict[str, str]]:
    with open(output_dir / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "hours"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("weights", ["lora", "full"])
def test_trained_pcm_loads_beside_its_base_and_knows_where_it_comes_from(
    policy: DiffusionPolicy,
    arguments: list[str],
    tmp_path: Path,
    weights: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output_dir = tmp_path / "run"
    assert main([*arguments, f"output_dir={output_dir}", f"weights={weights}"]) == 0
    assert "training-free" in capsys.readouterr().out
    pcm = load_pcm(output_dir / "pcm.safetensors", policy.network)
    assert (pcm.weights, pcm.steps, pcm.iterations) == (weights, T, K)
    assert (pcm.solver, pcm.jacobian, pcm.start) == ("dpmpp_2m", "preconditioned", "gaussian")
    assert pcm.provenance["trajectories"]["seed"] == 0
    ratios = [float(row["error_ratio"]) for row in log(output_dir) if row["error_ratio"]]
    assert pcm.provenance["error_ratio"] == pytest.approx(min(ratios), rel=1e-6)
    assert pcm.provenance["training_steps"] == 10 * (1 + ratios.index(min(ratios)))


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed training in one process."""
    output_dir = tmp_path_factory.mktemp("whole")
    subprocess.run(command(*arguments, f"output_dir={output_dir}"), check=True, env=ENVIRONMENT)
    return output_dir


def test_killed_run_goes_on_and_ends_with_the_weights_it_would_have_had(
    arguments: list[str], whole: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(*arguments, f"output_dir={cut}"), env=ENVIRONMENT)
    while not (cut / "training_state.safetensors").exists():
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(log(cut)) < len(log(whole))
    subprocess.run(command(*arguments, f"output_dir={cut}"), check=True, env=ENVIRONMENT)
    expected, resumed = load_file(whole / "pcm.safetensors"), load_file(cut / "pcm.safetensors")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert log(cut) == log(whole)


@pytest.mark.parametrize("ratio", [False, "0.1", None, -1.0, float("nan")])
def test_a_run_does_not_go_on_from_a_pcm_whose_error_is_no_number(
    arguments: list[str], whole: Path, tmp_path: Path, *, ratio: object, capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "run"
    shutil.copytree(whole, output_dir)
    base = DiffusionPolicy.load(arguments[0].removeprefix("checkpoint="))
    pcm = load_pcm(whole / "pcm.safetensors", base.network)
    save_pcm(
        output_dir / "pcm.safetensors",
        replace(pcm, provenance={**pcm.provenance, "error_ratio": ratio}),
    )
    assert main([*arguments, f"output_dir={output_dir}"]) == 1
    error = capsys.readouterr().err
    assert f"{output_dir}/pcm.safetensors: bad header (provenance.error_ratio must be a number" in error


# Of 4 warm and cold samples each, as many processes now and then have one kind alone, and must not wait for each other.
@pytest.mark.parametrize(("starts", "run"), [("arguments", "whole"), ("warm_arguments", "warm_run")])
def test_two_processes_give_the_loss_curve_of_one(
    request: pytest.FixtureRequest, tmp_path: Path, starts: str, run: str
) -> None:
    arguments, whole = request.getfixturevalue(starts), request.getfixturevalue(run)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "training.pcm.train_pcm", *arguments, f"output_dir={tmp_path}"],
        check=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    one, two = ([float(row["loss"]) for row in log(output_dir)] for output_dir in (whole, tmp_path))
    assert two == pytest.approx(one, rel=1e-3)


def test_trajectories_of_another_base_are_refused(
    arguments: list[str], policy: DiffusionPolicy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    covariance = 0.1 * torch.eye(32)
    other = tmp_path / "other.safetensors"
    arguments = [*arguments, f"checkpoint={other}"]
    replace(policy, covariance=2 * covariance).save(other)
    assert main([*arguments, f"output_dir={tmp_path / 'run'}"]) == 1
    assert "store.zarr: trajectories by a covariance with sha256" in capsys.readouterr().err
    with torch.no_grad():
        next(policy.network.parameters()).add_(1)
    replace(policy, covariance=covariance).save(other)
    assert main([*arguments, f"output_dir={tmp_path / 'run'}"]) == 1
    assert "store.zarr: trajectories of a base whose weights have sha256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "iterations=4",
            "iterations must be in 1 (unrolled_iterations) … 3 (those of the trajectories), got 4",
        ),
        ("start_model=pcm", "iterations must be unrolled_iterations, 1, got 3"),
        ("held_out_samples=40", "held_out_samples 40 leave none of 40 to train on"),
        ("training.batch_size=64", "batch_size 64 exceeds the 32 training samples"),
        (
            "loss_weight=x",
            "loss_weight must be one of constant, inverse, inverse_std, training_free, got 'x'",
        ),
        ("base_iterations=1", "iterations + base_iterations must be at most 3 (those of the trajectories)"),
        ("loss_weight=training_free", "divides by distances, which floor must keep above 0"),
        ("floor=-1", "floor must not be negative, got -1.0"),
        ("base_iterations=-1", "base_iterations must not be negative, got -1"),
        ("targets=nothing", "targets 'nothing' match no Linear, Conv1d or ConvTranspose1d layer"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    arguments: list[str], tmp_path: Path, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, f"output_dir={tmp_path / 'run'}", argument]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_initial_call_can_only_be_trained_where_there_is_one(
    arguments: list[str], small_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "fresh.zarr"
    small = ["samples=8", f"sampler.steps={T}", f"iterations={K}", "sampler.picard.start=fresh", "device=cpu"]
    demonstrations = f"demonstrations={small_demonstrations}"
    assert build([arguments[0], demonstrations, f"output={store}", "held_out_episodes=1", *small]) == 0
    more = [f"trajectories={store}", "start_model=pcm", "iterations=1", f"output_dir={tmp_path / 'run'}"]
    assert main([arguments[0], *SMALL, *more]) == 1
    assert "needs trajectories with the start gaussian" in capsys.readouterr().err


def test_a_pcm_is_trained_for_the_answer_of_its_trajectories_solver(
    policy: DiffusionPolicy, arguments: list[str], small_demonstrations: Path, tmp_path: Path
) -> None:
    store, run = tmp_path / "store.zarr", tmp_path / "run"
    small = ["samples=32", f"sampler.steps={T}", f"iterations={K}", "sampler.solver=dpmpp_2m", "device=cpu"]
    demonstrations = f"demonstrations={small_demonstrations}"
    assert build([arguments[0], demonstrations, f"output={store}", "held_out_episodes=1", *small]) == 0
    # A training that hardly moves the weights: the PCM's errors are those without it.
    more = ["epochs=2", "training.validate_every=6", "training.learning_rate=1e-12"]
    assert main([arguments[0], *SMALL, f"trajectories={store}", *more, f"output_dir={run}"]) == 0
    base = DiffusionPolicy.load(arguments[0].removeprefix("checkpoint="))
    pcm = load_pcm(run / "pcm.safetensors", base.network)
    assert pcm.solver == "dpmpp_2m"
    # What training took for the way without it is what the sampler does.
    held_out = open_store(store)
    samples = load_trajectories(held_out)
    condition, states, solution = (torch.from_numpy(getattr(samples, name))[:8] for name in ARRAYS[:3])
    observations = base.normalizer.observation.unnormalize(condition.view(8, 2, 20))
    for iterations in (1, 2):
        sampler = SamplerConfig(
            "picard", "dpmpp_2m", T, stop=StopConfig(iterations), picard=PicardConfig(start="gaussian")
        )
        actions = base.with_sampler(sampler).predict(observations, noise=states[:, 0, 0]).actions
        found = base.normalizer.action.normalize(actions)
        torch.testing.assert_close(states[:, iterations, -1].clamp(-1, 1), found, atol=1e-5, rtol=0)
        error = error_p95(states[:, iterations], solution)
        for way in ("training_free", "pcm", "pcm_first"):
            assert pcm.provenance[f"{way}_depth_{iterations + 1}"] == pytest.approx(error, rel=1e-3)
    switched_off = base.with_pcm(pcm).with_sampler(
        SamplerConfig("pcm", pcm.solver, T, picard=PicardConfig("preconditioned", "fresh"))
    )
    expected = base.with_sampler(SamplerConfig("sequential", "dpmpp_2m", T)).predict(
        observations, noise=solution[:, 0]
    )
    actions = switched_off.predict(
        observations, noise=solution[:, 0], generator=torch.Generator().manual_seed(0)
    ).actions
    torch.testing.assert_close(actions, expected.actions, atol=0.02, rtol=0)  # px


@pytest.mark.parametrize(("start", "first_depth"), [("fresh", 1), ("held", 2)])
def test_depths_count_the_calls_of_the_start(
    arguments: list[str], small_demonstrations: Path, tmp_path: Path, start: str, first_depth: int
) -> None:
    store = tmp_path / "store.zarr"
    small = [
        "samples=16",
        f"sampler.steps={T}",
        f"iterations={K}",
        f"sampler.picard.start={start}",
        "device=cpu",
    ]
    demonstrations = f"demonstrations={small_demonstrations}"
    assert build([arguments[0], demonstrations, f"output={store}", "held_out_episodes=1", *small]) == 0
    more = [
        f"trajectories={store}",
        "epochs=1",
        "training.validate_every=2",
        f"output_dir={tmp_path / 'run'}",
    ]
    assert main([arguments[0], *SMALL, *more]) == 0
    columns = [column for column in log(tmp_path / "run")[0] if column.startswith("training_free")]
    assert columns == [f"training_free_depth_{first_depth + k}" for k in range(2)]


@pytest.fixture(scope="module")
def warm_arguments(
    arguments: list[str], small_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    store = tmp_path_factory.mktemp("warm") / "store.zarr"
    small = ["samples=72", f"sampler.steps={T}", "before.cold_share=0.3", "held_out_episodes=1", "device=cpu"]
    demonstrations = f"demonstrations={small_demonstrations}"
    assert build([arguments[0], demonstrations, f"output={store}", "preset=warm", *small]) == 0
    recipe = ["preset=warm", "epochs=2", "rank=2", "held_out_samples=24", "training.batch_size=8"]
    often = [
        "training.log_every=2",
        "training.checkpoint_every=4",
        "training.validate_every=4",
    ]
    return [arguments[0], f"trajectories={store}", "device=cpu", *recipe, *often]


@pytest.fixture(scope="module")
def warm_run(warm_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("warm_run")
    assert main([*warm_arguments, f"output_dir={output_dir}"]) == 0
    return output_dir


def test_one_pcm_serves_cold_and_warm_starts(policy: DiffusionPolicy, warm_run: Path) -> None:
    pcm = load_pcm(warm_run / "pcm.safetensors", policy.network)
    assert (pcm.iterations, pcm.warm_iterations, pcm.warm_start) == (1, 1, "actions")
    for columns in ("pcm_depth_2", "warm_pcm_depth_1", "warm_pcm_first_depth_2"):
        assert pcm.provenance[columns] > 0
    policy = replace(policy, covariance=0.1 * torch.eye(32)).with_pcm(pcm)
    assert policy.with_sampler(SamplerConfig("pcm")).resolved_sampler.starts_warm


def test_a_pcm_may_leave_cold_starts_to_the_base(
    warm_arguments: list[str],
    arguments: list[str],
    policy: DiffusionPolicy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = [*warm_arguments, "cold_starts=false", "held_out_samples=12"]
    assert main([*alone, f"output_dir={tmp_path / 'run'}"]) == 0
    pcm = load_pcm(tmp_path / "run" / "pcm.safetensors", policy.network)
    assert (pcm.iterations, pcm.warm_iterations, pcm.start_model) == (0, 1, "base")
    assert "pcm_depth_2" not in log(tmp_path / "run")[0]
    assert main([*arguments, "cold_starts=false", f"output_dir={tmp_path / 'cold'}"]) == 1
    assert "cold_starts=false leaves nothing: no sample of" in capsys.readouterr().err


def test_training_from_warm_starts_goes_on_where_it_was_interrupted(
    warm_arguments: list[str], warm_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        save_state(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("training.training_loop.save_state", interrupt)
        assert main([*warm_arguments, f"output_dir={tmp_path}"]) == 130
    assert len(log(tmp_path)) < len(log(warm_run))
    assert main([*warm_arguments, f"output_dir={tmp_path}"]) == 0
    expected, resumed = (load_file(run / "pcm.safetensors") for run in (warm_run, tmp_path))
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert log(tmp_path) == log(warm_run)


def test_a_training_goes_on_from_another_pcm_with_the_same_adapters(
    warm_arguments: list[str], warm_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    initial, run = warm_run / "pcm.safetensors", tmp_path / "run"
    still = [*warm_arguments, f"initial={initial}", "training.learning_rate=1e-12", "epochs=1"]
    assert main([*still, f"output_dir={run}"]) == 0
    expected, found = load_file(initial), load_file(run / "pcm.safetensors")
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert main([*still, f"output_dir={tmp_path / 'other'}", "rank=3"]) == 1
    assert "pcm.safetensors has rank=2, not rank=3" in capsys.readouterr().err
