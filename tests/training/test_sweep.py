"""Sweeps: many jobs of one command, by Hydra's launchers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.evaluation import evaluate
from training.policy import train_policy
from training.pusht import demonstrate_pusht

TINY = [
    "policy.down_dims=[8]",
    "policy.step_embed_dim=8",
    "policy.n_groups=4",
    "held_out_episodes=0",
    "rollout_episodes=0",
    "training.batch_size=8",
    "training.steps=2",
    "training.log_every=1",
    "training.checkpoint_every=2",
    "training.validate_every=2",
    "task=pusht",
]


def sweep(store: Path, *more: str) -> int:
    return train_policy.main(["-m", f"demonstrations={store}", *TINY, *more])


def test_a_job_in_another_process_says_its_own_command(
    small_demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert sweep(small_demonstrations, "training.seed=3", "output_dir=out/${training.seed}", *joblib) == 0
    check_output(tmp_path / "out" / "3", seed=3)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "outputs"}


def test_each_job_has_an_output_directory_and_one_that_fails_does_not_stop_the_others(
    small_demonstrations: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "3").mkdir(parents=True)
    (tmp_path / "out" / "3" / "thesis.txt").write_text("not ours")
    assert sweep(small_demonstrations, "training.seed=3,4,5", "output_dir=out/${training.seed}") == 1
    assert "out/3 is not made by pcm-train-policy" in capsys.readouterr().err
    for seed in (4, 5):
        check_output(tmp_path / "out" / str(seed), seed=seed)


def check_output(directory: Path, *, seed: int) -> None:
    """That a job wrote into it, which had this seed."""
    marker = json.loads((directory / ".pcm_policy.json").read_text())
    assert f"training.seed={seed} " in marker["command_line"]
    assert marker["command_line"].startswith("pcm-train-policy ")
    assert marker["identity"]["seed"] == seed
    assert (directory / "policy.safetensors").exists()


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (
            train_policy.main,
            ["-m", "demonstrations=a", "output_dir=out", "training.seed=0,1"],
            "error: two jobs would write into output_dir=out: training.seed=0 and training.seed=1; name it after what "
            "differs, such as 'output_dir=outputs/${training.seed}'",
        ),
        (
            evaluate.main,
            ["--multirun", "sampler.solver=ddim,ddpm"],
            "two jobs would write into output_dir=outputs/evaluate: sampler.solver=ddim and sampler.solver=ddpm",
        ),
        (
            train_policy.main,
            ["-m", "demonstrations=a", "output_dir=out/${training.seed}", "training.seed=0,-1"],
            "error: training.seed must not be negative, got -1",
        ),
        (
            demonstrate_pusht.main,
            ["-m", "output=a", "hydra/launcher=slurm"],
            "error: hydra/launcher=slurm is not installed, there are basic",
        ),
        (
            evaluate.main,
            ["hydra/launcher=joblib"],
            "error: hydra/launcher=joblib belongs to a sweep, whose first argument is -m",
        ),
    ],
)
def test_sweeps_that_cannot_be_run_are_refused_before_the_first_job(
    main,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())
