from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy import DiffusionPolicy, PolicyConfig, Range
from policy.checkpoint import file_sha256
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from training.data.demonstrations import load_demonstrations
from training.data.task_file import load_task
from training.policy.noise_prediction import TrainingData, noise_prediction_loss
from training.policy.train_policy import main

TINY = [
    "policy.down_dims=[8,16]",
    "policy.step_embed_dim=8",
    "policy.n_groups=4",
    "held_out_episodes=1",
    "rollout_episodes=0",
    "training.batch_size=8",
    "training.steps=60",
    "training.log_every=5",
    "training.checkpoint_every=5",
    "training.validate_every=20",
    "training.warmup_steps=5",
    "held_out_sampler.steps=2",
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the same sums in the same order in every process


def arguments(store: Path, output_dir: Path, *more: str) -> list[str]:
    return [f"demonstrations={store}", "task=pusht", f"output_dir={output_dir}", *TINY, *more]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "training.policy.train_policy", *args]


def losses(output_dir: Path) -> list[float]:
    with open(output_dir / "log.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_trained_policy_loads_acts_and_knows_where_it_comes_from(
    small_demonstrations: Path, tmp_path: Path, observations: torch.Tensor
) -> None:
    more = [
        "rollout_episodes=1",
        "rollout_max_steps=8",
        "rollout_sampler.steps=2",
        "held_out_sampler.steps=2",
    ]
    assert main(arguments(small_demonstrations, tmp_path, *more)) == 0
    policy = DiffusionPolicy.load(tmp_path / "policy.safetensors")
    assert policy.predict_chunk(observations).isfinite().all()
    assert policy.provenance["training_steps"] == 60
    assert policy.provenance["seed"] == 0
    assert len(policy.provenance["data_sha256"]) == 64
    with open(tmp_path / "log.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert 0 < float(last["held_out_loss"]) < 2
    assert 0 <= float(last["rollout_reward"]) <= 1
    # Trained already: what got lost is written again.
    (tmp_path / "policy.safetensors").unlink()
    assert main(arguments(small_demonstrations, tmp_path, *more)) == 0
    again = DiffusionPolicy.load(tmp_path / "policy.safetensors")
    noise = torch.zeros(len(observations), 16, 2)
    assert torch.equal(
        again.predict_chunk(observations, noise=noise), policy.predict_chunk(observations, noise=noise)
    )


@pytest.fixture(scope="module")
def whole(small_demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed training in one process."""
    output_dir = tmp_path_factory.mktemp("whole")
    subprocess.run(command(*arguments(small_demonstrations, output_dir)), check=True, env=ENVIRONMENT)
    return output_dir


def test_training_goes_on_from_an_initial_policy(
    small_demonstrations: Path, tmp_path: Path, policy: DiffusionPolicy
) -> None:
    narrow = Range(torch.tensor([100.0, 0.0]), torch.tensor([512.0, 300.0]))
    policy = replace(policy, normalizer=replace(policy.normalizer, action=narrow))
    policy.save(tmp_path / "begun.safetensors")
    more = [f"initial={tmp_path / 'begun.safetensors'}", "training.steps=1", "training.learning_rate=1e-9"]
    assert main(arguments(small_demonstrations, tmp_path / "out", *more)) == 0
    found = DiffusionPolicy.load(tmp_path / "out" / "policy.safetensors")
    assert found.provenance["initial_sha256"] == file_sha256(tmp_path / "begun.safetensors")
    for name, weights in policy.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], weights, atol=1e-6, rtol=0)
    limits, actions = found.normalizer.action, load_demonstrations(small_demonstrations, task="pusht").actions
    assert limits.minimum.tolist() == [float(actions[:, 0].min()), 0]
    assert limits.maximum.tolist() == [512, float(actions[:, 1].max())]


def test_held_out_episodes_say_how_far_off_the_actions_are(
    small_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["held_out_episodes=2", "training.steps=25"]
    assert main(arguments(small_demonstrations, tmp_path, *more)) == 0
    printed = capsys.readouterr().out
    assert "hold: hold the last position" in printed
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    validated = [int(row["step"]) for row in rows if row["held_out_error"]]
    assert validated == [20, 25]
    summary = json.loads((tmp_path / "held_out.json").read_text())
    provenance = DiffusionPolicy.load(tmp_path / "policy.safetensors").provenance
    assert provenance["held_out_episodes"] == summary["episodes"]
    assert len(summary["episodes"]) == 2
    # The log has one of the report's noise seeds.
    for dimension in summary["dimensions"]:
        logged = float(rows[-1][f"held_out_error/{dimension['name']}"])
        assert logged == pytest.approx(dimension["policy"]["mean_absolute"]["mean"], rel=0.5)
    assert (tmp_path / "held_out.csv").exists()
    # Trained already: what got lost is written again, and says the same.
    (tmp_path / "held_out.json").unlink()
    (tmp_path / "held_out.png").unlink()
    assert main(arguments(small_demonstrations, tmp_path, *more)) == 0
    assert json.loads((tmp_path / "held_out.json").read_text()) == summary
    assert (tmp_path / "held_out.png").exists()


def test_without_held_out_episodes_there_is_nothing_to_report(
    small_demonstrations: Path, tmp_path: Path
) -> None:
    assert main(arguments(small_demonstrations, tmp_path, "held_out_episodes=0", "training.steps=5")) == 0
    assert not list(tmp_path.glob("held_out*"))


def test_killed_run_goes_on_and_ends_with_the_weights_it_would_have_had(
    small_demonstrations: Path, whole: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    # Long enough that it cannot end before it is killed: the kill comes at the first saved state.
    process = subprocess.Popen(command(*arguments(small_demonstrations, cut)), env=ENVIRONMENT)
    state = cut / "training_state.safetensors"
    while not state.exists():
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(losses(cut)) < len(losses(whole))

    subprocess.run(command(*arguments(small_demonstrations, cut)), check=True, env=ENVIRONMENT)
    expected, resumed = load_file(whole / "policy.safetensors"), load_file(cut / "policy.safetensors")
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert losses(cut) == losses(whole)


def test_two_processes_give_the_loss_curve_of_one(
    small_demonstrations: Path, whole: Path, tmp_path: Path
) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, "-m", "training.policy.train_policy", *arguments(small_demonstrations, tmp_path)],
        check=True,
        env=ENVIRONMENT,
    )
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-5)


def test_batch_that_cannot_be_built_is_refused(
    small_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(small_demonstrations, tmp_path, "training.batch_size=100000")) == 1
    assert "batch_size 100000 exceeds the" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("rollout_episodes=-1", "rollout_episodes must not be negative, got -1"),
        ("rollout_max_steps=0", "rollout_max_steps must be at least 1, got 0"),
        ("rollout_episodes=1000000", "error: rollout_episodes must be at most 100000, got 1000000"),
        ("rollout_sampler.steps=102", "error: rollout_sampler.steps must be in 1 … 100 (training timesteps)"),
        ("rollout_sampler.method=pcm", "error: rollout_sampler.method=pcm needs a PCM"),
        (
            "held_out_sampler.steps=102",
            "error: held_out_sampler.steps must be in 1 … 100 (training timesteps)",
        ),
        ("held_out_sampler.method=pcm", "error: held_out_sampler.method=pcm needs a PCM"),
        ("rollout_sampler.steps=101", "steps must be in 1 … 100 (training timesteps), got 101"),
        ("rollout_sampler.method=pcm", "sampler.method=pcm needs a PCM, and the policy has none"),
    ],
)
def test_rollouts_that_cannot_be_run_are_refused_before_the_training(
    small_demonstrations: Path,
    tmp_path: Path,
    argument: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(small_demonstrations, tmp_path, argument)) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_perfect_noise_prediction_has_no_loss() -> None:
    """The loss of a network that inverts x_t = √ᾱ·x + √(1−ᾱ)·ε for the one action sequence there is."""
    alphas_cumprod = squared_cosine_alphas_cumprod(100).float()
    actions = torch.rand(1, 16, 2) * 2 - 1
    data = TrainingData(torch.zeros(1, 40), actions)

    class Oracle(torch.nn.Module):
        def forward(
            self, sample: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor
        ) -> torch.Tensor:
            alpha = alphas_cumprod[timestep, None, None]
            return (sample - alpha.sqrt() * actions) / (1 - alpha).sqrt()

    rows, generator = torch.zeros(64, dtype=torch.long), torch.Generator().manual_seed(0)
    loss = noise_prediction_loss(
        Oracle(), data, rows, alphas_cumprod=alphas_cumprod, generator=generator, share=slice(None)
    )
    assert loss.item() < 1e-8


def test_shares_of_the_workers_add_up_to_the_loss_of_one() -> None:
    torch.manual_seed(0)
    network = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4).build_network(
        load_task("pusht").task
    )
    data = TrainingData(torch.randn(10, 40), torch.rand(10, 16, 2) * 2 - 1)
    alphas_cumprod, rows = squared_cosine_alphas_cumprod(100).float(), torch.arange(8)

    def loss(share: slice) -> float:
        generator = torch.Generator().manual_seed(3)
        return noise_prediction_loss(
            network, data, rows, alphas_cumprod=alphas_cumprod, generator=generator, share=share
        ).item()

    halves = [loss(slice(0, 4)), loss(slice(4, 8))]
    assert sum(halves) / 2 == pytest.approx(loss(slice(None)), abs=1e-6)
