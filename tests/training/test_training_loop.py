from __future__ import annotations

import csv
import itertools
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from policy import CheckpointError
from training.distributed import Worker
from training.training_loop import TrainingConfig, batch_rows, generator_for, train, training_outputs

OUTPUTS = training_outputs("pcm-train-test", "result.safetensors")
ALONE = Worker(0, 1, torch.device("cpu"))
CONFIG = TrainingConfig(
    steps=30,
    batch_size=4,
    learning_rate=0.1,
    warmup_steps=5,
    log_every=5,
    checkpoint_every=10,
    validate_every=10,
)


def regression_loss(network: nn.Module, step: int) -> Tensor:
    x = torch.randn(4, 3, generator=generator_for(0, step, torch.device("cpu")))
    return ((network(x) - x.sum(1, keepdim=True)) ** 2).mean()


def run(output_dir: Path, config: TrainingConfig = CONFIG, loss=regression_loss, identity=None):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    averaged = deepcopy(network).requires_grad_(False)
    train(
        network,
        averaged,
        loss,
        validate=lambda n, i: {"error": 1.0},
        validation_columns=["error"],
        config=config,
        worker=ALONE,
        output_dir=output_dir,
        outputs=OUTPUTS,
        identity=identity or {},
    )
    return network, averaged


def rows(output_dir: Path) -> list[dict[str, str]]:
    with open(output_dir / "log.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "hours"} for row in csv.DictReader(file)]


def test_averaged_weights_keep_no_history_of_the_training(tmp_path: Path) -> None:
    _, averaged = run(tmp_path)
    assert all(weight.grad_fn is None and not weight.requires_grad for weight in averaged.parameters())


def test_loss_falls_and_every_due_row_is_logged(tmp_path: Path) -> None:
    run(tmp_path)
    log = rows(tmp_path)
    assert [int(row["step"]) for row in log] == [5, 10, 15, 20, 25, 30]
    assert float(log[-1]["loss"]) < 0.5 * float(log[0]["loss"])
    assert [row["error"] for row in log] == ["", "1", "", "1", "", "1"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_interrupted_run_ends_with_the_same_weights_and_log(tmp_path: Path) -> None:
    expected, expected_average = run(tmp_path / "whole")

    def interrupted(network: nn.Module, step: int) -> Tensor:
        if step == 17:  # after row 15, which is newer than the last saved state, 10
            raise KeyboardInterrupt
        return regression_loss(network, step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", loss=interrupted)
    assert [int(row["step"]) for row in rows(tmp_path / "cut")] == [5, 10, 15]
    network, averaged = run(tmp_path / "cut")
    assert torch.equal(network.weight, expected.weight)
    assert torch.equal(averaged.weight, expected_average.weight)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    expected, _ = run(tmp_path)
    log = (tmp_path / "log.csv").read_bytes()

    def not_called(network: nn.Module, step: int) -> Tensor:
        raise AssertionError("trained again")

    network, _ = run(tmp_path, loss=not_called)
    assert torch.equal(network.weight, expected.weight)
    assert (tmp_path / "log.csv").read_bytes() == log


def test_average_follows_its_recursion(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def loss(network: nn.Module, step: int) -> Tensor:
        seen.append(network.weight.detach().clone())
        return regression_loss(network, step)

    network, averaged = run(tmp_path, loss=loss)
    expected = seen[0].double()
    for i, weight in enumerate([*seen[1:], network.weight.detach()]):
        decay = min(0.9999, 1 - (1 + i) ** -0.75)
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged.weight.double(), expected, atol=1e-6, rtol=0)


def test_run_with_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    run(tmp_path, identity={"data": "abc"})
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(
        ValueError, match=r"belongs to a run with data=abc, this one has data=xyz; choose another"
    ):
        run(tmp_path, identity={"data": "xyz"})
    assert {path: path.read_bytes() for path in tmp_path.glob("*.*")} == before


def test_damaged_state_is_refused_and_kept(tmp_path: Path) -> None:
    run(tmp_path)
    state = tmp_path / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"training_state\.safetensors: truncated"):
        run(tmp_path)
    assert state.exists()


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path: Path) -> None:
    def exploding(network: nn.Module, step: int) -> Tensor:
        return regression_loss(network, step) * (float("nan") if step == 21 else 1)

    with pytest.raises(FloatingPointError, match="the loss is nan at step 25; try a lower learning_rate"):
        run(tmp_path, loss=exploding)
    resumed, _ = run(tmp_path)
    assert resumed.weight.isfinite().all()


def test_a_gradient_that_is_not_finite_stops_the_run_before_its_weights_are_saved(tmp_path: Path) -> None:
    def exploding(network: nn.Module, step: int) -> Tensor:
        loss = regression_loss(network, step)
        if step == 19:  # the weights of this step are due to be saved
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    with pytest.raises(FloatingPointError, match="the gradient norm is nan at step 20"):
        run(tmp_path, loss=exploding)
    resumed, _ = run(tmp_path)
    assert resumed.weight.isfinite().all()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".training_state.12345.tmp.safetensors"
    leftover.write_bytes(b"half")
    run(tmp_path)
    assert not leftover.exists()


@given(steps=st.integers(1, 1000), warmup=st.integers(0, 1000))
def test_learning_rate_warms_up_to_its_peak_and_decays(steps: int, warmup: int) -> None:
    config = TrainingConfig(steps=steps, warmup_steps=warmup, learning_rate=0.1)
    rates = [config.learning_rate_at(i) for i in range(steps)]
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in rates)
    peak = max(0, warmup - 1)
    pairs = list(itertools.pairwise(rates))
    rounding = 1e-12
    assert all(after > before - rounding for before, after in pairs[:peak])
    assert all(after < before + rounding for before, after in pairs[peak:])


@given(count=st.integers(1, 50), seed=st.integers(0, 100), data=st.data())
def test_an_epoch_visits_every_sample_at_most_once(count: int, seed: int, data: st.DataObject) -> None:
    batch_size = data.draw(st.integers(1, count))
    batches = count // batch_size
    for epoch in range(2):
        rows = [batch_rows(count, batch_size, seed=seed, step=epoch * batches + i) for i in range(batches)]
        visited = torch.cat(rows).tolist()
        assert len(visited) == len(set(visited)) == batches * batch_size
        assert set(visited) <= set(range(count))
