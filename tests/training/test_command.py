from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policy.sampling import sampler_options
from policy.solvers import OWN_SOLVERS, SOLVERS
from training.data import download_demonstrations
from training.evaluation import evaluate
from training.importing import import_demonstrations
from training.policy import estimate_covariance, train_policy
from training.pusht import demonstrate_pusht

COMMANDS = [
    demonstrate_pusht.main,
    download_demonstrations.main,
    estimate_covariance.main,
    evaluate.main,
    import_demonstrations.main,
    train_policy.main,
]
REQUIRED = ["demonstrations=nowhere.zarr", "output_dir=out"]


@pytest.mark.parametrize("main", COMMANDS)
def test_help_explains_every_key_and_touches_nothing(
    main, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "\noutput" in text
    assert not list(tmp_path.iterdir())


def test_help_shows_the_groups_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(["-h"])
    text = capsys.readouterr().out
    for name, option, value in sampler_options():
        assert f"{name.rpartition('.')[2]}: {value}\n" in f"{text}\n"
        assert option.metadata["description"] in " ".join(text.replace("#", "").split())
    assert "# sampler.KEY=…" in text
    assert "# latency=fixed" in text
    assert "# preset=" not in text
    train_policy.main(["-h"])
    assert "# preset=paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (train_policy.main, ["output_dir=out"], "demonstrations=… is required"),
        (train_policy.main, REQUIRED, "nowhere.zarr: no such file or folder"),
        (train_policy.main, [*REQUIRED, "preset=huge"], "Available options in 'preset': image paper small"),
        (
            train_policy.main,
            [*REQUIRED, "training.batchsize=3"],
            "no key 'training.batchsize'; keys beside it: steps, batch_size",
        ),
        (
            train_policy.main,
            [*REQUIRED, "+training.batchsize=3"],
            "no key 'training.batchsize'; keys beside it",
        ),
        (train_policy.main, [*REQUIRED, "training.steps=many"], "could not be converted to Integer"),
        (train_policy.main, [*REQUIRED, "training.steps=0"], "steps must be above 0, got 0"),
        (train_policy.main, [*REQUIRED, "training.learning_rate=-1"], "learning_rate must be above 0"),
        (train_policy.main, [*REQUIRED, "training.precision=float8"], "must be auto, float32 or bfloat16"),
        (train_policy.main, [*REQUIRED, "training.log_every=7"], "must be a multiple of log_every=7"),
        (train_policy.main, [*REQUIRED, "policy.horizon=15"], "horizon must be a multiple of 4"),
        (
            train_policy.main,
            [*REQUIRED, "rollout_sampler.solver=euler"],
            f"must be one of auto, {', '.join([*SOLVERS, *OWN_SOLVERS])}, got 'euler'",
        ),
        (
            evaluate.main,
            ["sampler=ddim"],
            "a sampler is a method and a solver: sampler.method=… sampler.solver=…",
        ),
        (
            evaluate.main,
            ["sampler.method=newton"],
            "sampler.method must be one of sequential, picard, parasolver, pcm, got 'newton'",
        ),
        (evaluate.main, ["sampler.method=pcm"], "sampler.method=pcm needs pcm=….safetensors"),
        (evaluate.main, ["sampler.steps=-1"], "sampler.steps must be in 0 … 1000, got -1"),
        (
            evaluate.main,
            ["sampler.stop.iterations=2"],
            "sampler.stop.iterations=2 belongs to the methods picard, parasolver, pcm, not to sequential",
        ),
        (evaluate.main, ["latency=slow"], "Available options in 'latency': fixed measured none"),
        (evaluate.main, ["episodes=0"], "episodes must be at least 1, got 0"),
        (evaluate.main, ["batch_size=0"], "batch_size must be at least 1"),
        (evaluate.main, ["first_seed=-1"], "first_seed must be in 0 …"),
        (evaluate.main, ["device=tpu"], "device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (evaluate.main, ["checkpoint=nowhere"], "nowhere: no such checkpoint file"),
        (evaluate.main, ["episodes"], "arguments look like key=value, got 'episodes'"),
        (evaluate.main, ["episodes=[1"], "cannot read the argument 'episodes=[1'"),
        (
            evaluate.main,
            ["output_dir=josé"],
            """'output_dir=josé'; a value with other than plain letters needs quotes: 'output_dir="josé"'""",
        ),
        (evaluate.main, ["episodes=1000000000"], "error: episodes must be at most 100000, got 1000000000"),
        (evaluate.main, ["max_steps=1000000000"], "error: max_steps must be at most 100000"),
        (train_policy.main, [*REQUIRED, "policy.horizon=15"], "error: policy.horizon must be a multiple"),
        (train_policy.main, [*REQUIRED, "policy.kernel_size=100001"], "error: policy.kernel_size must be at"),
        (train_policy.main, [*REQUIRED, "policy.down_dims=[]"], "error: policy.down_dims must have 1 … 8"),
        (train_policy.main, [*REQUIRED, "training.steps=0"], "error: training.steps must be above 0, got 0"),
        (
            train_policy.main,
            [*REQUIRED, "training.steps=1000000000000000"],
            "error: training.steps must be at most 1000000000, got 1000000000000000",
        ),
        (
            train_policy.main,
            [*REQUIRED, "rollout_sampler.method=newton"],
            "error: rollout_sampler.method must be one of sequential, picard",
        ),
        (
            train_policy.main,
            [*REQUIRED, "rollout_sampler.stop.iterations=-1"],
            "error: rollout_sampler.stop.iterations must be in 0 … 1000, got -1",
        ),
        (
            train_policy.main,
            [*REQUIRED, "training=2"],
            "error: training is a section of keys such as training.steps, no value",
        ),
        (
            train_policy.main,
            [*REQUIRED, "rollout_sampler.picard=x"],
            "error: rollout_sampler.picard is a section of keys such as rollout_sampler.picard.",
        ),
        (
            train_policy.main,
            [*REQUIRED, "training.steps=1" + "0" * 400],
            "error: training.steps is too large a",
        ),
        (evaluate.main, ["latency=5"], "error: a choice is a name, got a number or the like in latency=5"),
        (
            evaluate.main,
            ["latency=[1,1]"],
            "error: a choice is a name, got a number or the like in latency=[1,1]",
        ),
        (evaluate.main, ["+sampler=0.5"], "error: a sampler is a method and a solver"),
        (evaluate.main, ["output_dir=\ré"], "error: cannot read the argument 'output_dir=\\ré'"),
        (evaluate.main, ["episodes=" + "x" * 5000], "… of type 'str' could not be converted to Integer"),
        (
            estimate_covariance.main,
            ["checkpoint=a", "demonstrations=b", "output=c", "samples=1000000000000000"],
            "error: observations × samples must be at most 1000000, got 96 × 1000000000000000",
        ),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(
    main,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_command_as_a_process_exits_with_1_and_shows_no_traceback(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "training.evaluation.evaluate",
            "checkpoint=nowhere",
            f"output_dir={tmp_path}/out",
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.strip() == "error: nowhere: no such checkpoint file"
