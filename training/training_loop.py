"""The loop around any loss: optimiser, schedule, EMA, logs, and a state that survives being killed.

Everything random in optimiser step i is drawn from (seed, i), so that no generator has a state to save. A run that was
killed and started again, or that is spread over more processes, sees the same batches and noises.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from policy.atomic_write import remove_leftovers
from training.distributed import Worker
from training.output_dir import Outputs, claim_output_dir, locked_output_dir
from training.seeds import combine_seeds
from training.training_log import TrainingLog
from training.training_state import STATE_FORMAT, Progress, TrainingState, restore_state, save_state

# Far above any training: what is beyond is a slip, and would never end.
MOST = {"steps": 10**9, "batch_size": 10**7, "warmup_steps": 10**9, "seed": 2**63 - 1}
STATE, LOG = "training_state.safetensors", "log.csv"

Loss = Callable[[nn.Module, int], Tensor]
"""(network, optimiser step) → mean loss over this worker's share of the step's batch."""

Validate = Callable[[nn.Module, int], dict[str, float]]
"""(network with averaged weights, optimiser steps so far) → numbers for the log; called by the first worker alone."""


@dataclass(frozen=True)
class TrainingConfig:
    """Options of a training, whatever the loss. A step is an optimiser step.

    Attributes:
        steps: number of optimiser steps.
        batch_size: samples per step, over all processes.
        learning_rate: peak of the learning rate, after `warmup_steps`; then a cosine decay to 0.
        weight_decay: weight decay of AdamW.
        gradient_clip: largest gradient norm.
        ema_power: the decay of the averaged weights is 1 − (1 + i)^(−power) in step i.
        ema_max_decay: upper limit of that decay.
        precision: ``auto`` (bfloat16 on CUDA, else float32), ``float32`` or ``bfloat16``.
        compile: whether to compile the network first.
        seed: seed of weights, batches and noises.
        log_every, checkpoint_every, validate_every: periods in steps; the last two are multiples of the first.
    """

    steps: int = 9000
    batch_size: int = 256
    learning_rate: float = 5e-4
    warmup_steps: int = 500
    weight_decay: float = 1e-6
    gradient_clip: float = 1.0
    ema_power: float = 0.75
    ema_max_decay: float = 0.9999
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 500
    validate_every: int = 2000

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "gradient_clip", "log_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "ema_power", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema_max_decay < 1:
            raise ValueError(f"ema_max_decay must be in [0, 1), got {self.ema_max_decay}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        for name in ("checkpoint_every", "validate_every"):
            value = getattr(self, name)
            if value <= 0 or value % self.log_every:
                raise ValueError(f"{name} must be a multiple of log_every={self.log_every}, got {value}")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def ema_decay_at(self, step: int) -> float:
        return min(self.ema_max_decay, 1 - (1 + step) ** -self.ema_power)


def generator_for(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Generator of everything random in one optimiser step."""
    return torch.Generator(device).manual_seed(combine_seeds(seed, step))


def batch_rows(count: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """(batch_size,) indices into `count` samples: consecutive pieces of a fresh permutation per epoch."""
    batches = max(1, count // batch_size)
    epoch, batch = divmod(step, batches)
    permutation = torch.randperm(count, generator=generator_for(seed, epoch, torch.device("cpu")))
    return permutation[batch * batch_size : (batch + 1) * batch_size]


def training_outputs(command: str, *results: str) -> Outputs:
    """What a training writes: its results, and what `train` writes."""
    return Outputs(command, (*results, STATE, LOG, "tensorboard"), _is_state)


def _is_state(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == STATE_FORMAT
    except (SafetensorError, OSError):
        return False


def train(
    network: nn.Module,
    averaged: nn.Module,
    loss: Loss,
    *,
    validate: Validate,
    validation_columns: Sequence[str],
    config: TrainingConfig,
    worker: Worker,
    output_dir: Path,
    outputs: Outputs,
    overwrite: bool = False,
    identity: dict[str, Any],
    measured: Mapping[str, Callable[[], float]] | None = None,
) -> None:
    """Train `network`, and keep a moving average of its weights in `averaged`.

    A run that is started again in the same `output_dir` continues from its last saved state.

    Args:
        network: network with its initial weights, the same on every worker.
        averaged: copy of the network.
        loss: see `Loss`.
        validate: see `Validate`.
        validation_columns: names of the numbers that `validate` may return, columns of the log.
        config: options of the training.
        worker: this process.
        output_dir: folder for `training_state.safetensors`, `log.csv` and `tensorboard/`.
        outputs: see `training_outputs`.
        overwrite: whether to write into a folder with other things in it.
        measured: further columns of the log: name → number since the last row.
        identity: everything else that defines this run (JSON values). A saved state with another identity is refused.

    Raises:
        ValueError: if `output_dir` holds the state of another run, or other things.
        RuntimeError: if another training has that folder.
        CheckpointError: if that state is damaged.
        FloatingPointError: if the loss or its gradient is not finite; the last saved state is kept.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.95, 0.999), weight_decay=config.weight_decay
    )
    state = TrainingState(network, averaged, optimizer)
    state_path = output_dir / STATE
    identity = {**asdict(config), **identity}
    with ExitStack() as locked:
        if worker.is_first:
            locked.enter_context(locked_output_dir(output_dir, outputs, overwrite=overwrite))
            remove_leftovers(output_dir, outputs.names)
        before = restore_state(state_path, state, identity, steps=config.steps, device=worker.device)
        start = before.step
        if worker.is_first:
            claim_output_dir(output_dir, outputs, identity)
        worker.wait()
        if start >= config.steps:
            return
        started = time.monotonic()

        trained: nn.Module = network
        if worker.world_size > 1:
            trained = DistributedDataParallel(network)
        if config.compile:
            trained = torch.compile(trained)  # type: ignore[assignment]
        bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and worker.device.type == "cuda"
        )
        columns = ["loss", "learning_rate", "gradient_norm", "hours", *(measured or {}), *validation_columns]
        log = TrainingLog(output_dir, columns, start) if worker.is_first else None
        loss_sum = torch.zeros((), device=worker.device)
        weights: list[Tensor] = list(network.parameters())
        averages: list[Tensor] = list(averaged.parameters())
        progress = tqdm(
            total=config.steps * config.batch_size,
            initial=start * config.batch_size,
            unit="sample",
            unit_scale=True,
            desc="training",
            disable=not worker.is_first,
            mininterval=1,
        )
        try:
            for step in range(start, config.steps):
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate_at(step)
                with torch.autocast(worker.device.type, torch.bfloat16, enabled=bfloat16):
                    value = loss(trained, step)
                optimizer.zero_grad(set_to_none=True)
                value.backward()
                norm = torch.nn.utils.clip_grad_norm_(weights, config.gradient_clip)
                optimizer.step()
                with torch.no_grad():  # the averages' history would grow with every step
                    torch._foreach_lerp_(averages, weights, 1 - config.ema_decay_at(step))
                loss_sum += value.detach()
                progress.update(config.batch_size)

                done = step + 1
                hours = before.hours + (time.monotonic() - started) / 3600
                if done % config.log_every == 0 or done == config.steps:
                    count = config.log_every if done % config.log_every == 0 else done % config.log_every
                    mean_loss = worker.mean(loss_sum / count).item()
                    loss_sum.zero_()
                    for name, number in (("loss", mean_loss), ("gradient norm", norm.item())):
                        if not math.isfinite(number):
                            raise FloatingPointError(
                                f"the {name} is {number} at step {done}; try a lower learning_rate"
                            )
                    progress.set_postfix(loss=f"{mean_loss:.4g}")
                    if log is not None:
                        row = {
                            "loss": mean_loss,
                            "learning_rate": config.learning_rate_at(step),
                            "gradient_norm": norm.item(),
                            "hours": hours,
                            **{name: measure() for name, measure in (measured or {}).items()},
                        }
                        if done % config.validate_every == 0 or done == config.steps:
                            averaged.eval()
                            row |= validate(averaged, done)
                        log.write(done, row)
                if worker.is_first and (done % config.checkpoint_every == 0 or done == config.steps):
                    save_state(state_path, state, progress=Progress(done, hours), identity=identity)
        finally:
            progress.close()
            if log is not None:
                log.close()
        worker.wait()
