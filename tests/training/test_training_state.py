"""Damaged training states: each is an error that names the file, and none counts as finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from policy import CheckpointError
from policy.checkpoint import Checkpoint, save_checkpoint
from training.training_state import STATE_FORMAT, Progress, TrainingState, restore_state, save_state

CPU = torch.device("cpu")


def make_state() -> TrainingState:
    """A network of which one layer is frozen, after one optimiser step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 1))
    state = TrainingState(network, deepcopy(network), torch.optim.AdamW(network.parameters()))
    network(torch.ones(2, 3)).sum().backward()
    state.optimizer.step()
    return state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "training_state.safetensors"
    save_state(path, make_state(), progress=Progress(1, 0.5), identity={"seed": 3})
    return path


def restore(path: Path) -> Progress:
    return restore_state(path, make_state(), {"seed": 3}, steps=10, device=CPU)


def change(path: Path, header: dict[str, Any] | None = None, **tensors: Tensor | None) -> None:
    """Change keys of the header and tensors (None removes one), as a writer with another idea of them would."""
    with safe_open(path, "pt") as file:
        saved = json.loads(file.metadata()["header"]) | (header or {})
    kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    saved = {key: value for key, value in saved.items() if value is not None}
    save_checkpoint(path, Checkpoint(kept, saved), STATE_FORMAT)


def test_a_whole_state_is_restored(path: Path) -> None:
    state = make_state()
    with torch.no_grad():
        state.network[1].weight.zero_()
    assert restore_state(path, state, {"seed": 3}, steps=10, device=CPU) == Progress(1, 0.5)
    assert torch.equal(state.network[1].weight, make_state().network[1].weight)
    assert restore(path.with_name("missing")) == Progress()


@pytest.mark.parametrize("step", [0, -1, 11, 10_000_000, 1.0, True, "1", None, [1]])
def test_steps_that_the_training_does_not_have_are_refused(path: Path, step: Any) -> None:
    change(path, {"step": step})
    with pytest.raises(
        CheckpointError, match=r"training_state\.safetensors: bad header \(step must be .* 1 … 10"
    ):
        restore(path)


@pytest.mark.parametrize("hours", [-1, float("nan"), float("inf"), "1", None, True])
def test_hours_that_are_none_are_refused(path: Path, hours: Any) -> None:
    change(path, {"hours": hours})
    with pytest.raises(CheckpointError, match=r"training_state\.safetensors: bad header \(hours must be"):
        restore(path)


@pytest.mark.parametrize("seed", [3.0, "3", True, "x" * 5000, [[[3]]]])
def test_another_kind_of_value_is_another_run(path: Path, seed: Any) -> None:
    change(path, {"identity": {"seed": seed}})
    with pytest.raises(
        ValueError, match=r"training_state\.safetensors belongs to a run with seed="
    ) as raised:
        restore(path)
    assert len(str(raised.value)) < 600 + len(str(path))


@pytest.mark.parametrize("identity", [None, 3, [], "seed"])
def test_an_identity_that_is_none_is_refused(path: Path, identity: Any) -> None:
    change(path, {"identity": identity})
    with pytest.raises(CheckpointError, match=r"training_state\.safetensors: bad header \(identity must be"):
        restore(path)


@pytest.mark.parametrize(
    "name", ["network.1.bias", "averaged.0.weight", "optimizer.2.step", "optimizer.3.exp_avg"]
)
def test_tensors_that_do_not_fit_are_named(path: Path, name: str) -> None:
    whole = path.read_bytes()
    tensor = load_file(path)[name]
    for value, message in (
        (None, "are missing"),
        (torch.cat([tensor.flatten()] * 3), "have shape"),
        (tensor.double(), "have torch.float64, need torch.float32"),
        (torch.full_like(tensor, float("nan")), "are not finite"),
    ):
        path.write_bytes(whole)
        change(path, **{name: value})
        with pytest.raises(CheckpointError, match=rf"training_state\.safetensors: .*'{name}' {message}"):
            restore(path)


@pytest.mark.parametrize(
    "name", ["optimizer.0.exp_avg", "optimizer.x.step", "optimizer.2", "foreign", "optimizer.9.step"]
)
def test_tensors_of_something_else_are_named(path: Path, name: str) -> None:
    change(path, **{name: torch.zeros(())})
    with pytest.raises(CheckpointError, match=rf"training_state\.safetensors: .*'{name}' are unexpected"):
        restore(path)


def test_moments_that_no_training_leaves_are_refused(path: Path) -> None:
    change(path, **{"optimizer.2.step": torch.tensor(7.0)})
    with pytest.raises(CheckpointError, match=r"'optimizer\.2\.step' are 7, need 1, the optimiser steps"):
        restore(path)
    save_state(path, make_state(), progress=Progress(1), identity={"seed": 3})
    change(path, **{"optimizer.3.exp_avg_sq": torch.tensor([-1.0])})
    with pytest.raises(CheckpointError, match=r"'optimizer\.3\.exp_avg_sq' must not be negative"):
        restore(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], "truncated"),
        (lambda content: b"", "truncated or not a safetensors file"),
        (lambda content: b"step,loss\n" * 50, "truncated or not a safetensors file"),
        (lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:], "damaged"),
    ],
)
def test_damaged_files_are_refused(path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=rf"training_state\.safetensors: {message}"):
        restore(path)


def test_another_run_s_state_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="belongs to a run with seed=3, this one has seed=4"):
        restore_state(path, make_state(), {"seed": 4}, steps=10, device=CPU)
