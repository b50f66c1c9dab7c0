"""Training states, from which a killed training goes on."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import nn

from policy import CheckpointError
from policy.checkpoint import Checkpoint
from tests.fuzz.case import Family, Fault, Inject, Outcome
from tests.fuzz.safetensors_faults import Subject, inject_file_fault, read, try_file
from training.training_state import Progress, TrainingState, restore_state, save_state

IDENTITY = {"seed": 3, "learning_rate": 1e-4, "down_dims": [8, 16], "data": "abc", "compile": False}
STEPS = 1000


def prepare(folder: Path) -> Inject:
    file = folder / "good.safetensors"
    save_state(file, _state(), progress=Progress(7, 0.5), identity=IDENTITY)
    subject = Subject(file, _state_again, (CheckpointError, ValueError))

    subject.load(file)  # the first of all takes longer, as libraries are loaded

    def inject(rng: np.random.Generator, case: Path) -> Fault:
        path = case / "training_state.safetensors"
        text, check = inject_file_fault(rng, file, path)
        if not path.exists():  # from the beginning, which is right
            return Fault(text, lambda: _starts_anew(path))
        return Fault(text, lambda: try_file(subject, path, check))

    return inject


def _state() -> TrainingState:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 8), nn.Linear(8, 1))
    state = TrainingState(network, deepcopy(network), torch.optim.AdamW(network.parameters()))
    for _ in range(7):
        network(torch.ones(2, 3)).sum().backward()
        state.optimizer.step()
    return state


def _restore(path: Path, state: TrainingState) -> Progress:
    return restore_state(path, state, IDENTITY, steps=STEPS, device=torch.device("cpu"))


def _state_again(path: Path) -> Checkpoint:
    """What a state's file is when it is read and written again."""
    state = _state()
    progress = _restore(path, state)
    again = path.with_name("again.safetensors")
    save_state(again, state, progress=progress, identity=IDENTITY)
    return read(again)


def _starts_anew(path: Path) -> Outcome:
    assert _restore(path, _state()) == Progress()
    return "accepted"


TRAINING_STATES = Family("training_states", 0.15, prepare)
