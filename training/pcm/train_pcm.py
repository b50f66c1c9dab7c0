"""Train a Picard Consistency Model from a base policy (PCM, So et al. 2025, section 4.1)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from policy import DiffusionPolicy
from policy.checkpoint import CheckpointError, file_sha256, tensors_sha256
from policy.networks.lora import add_lora
from policy.networks.unet import ConditionalUnet1D
from policy.pcm import PCM, load_pcm, save_pcm, weights_sha256
from training.command import run_command
from training.distributed import Worker, worker
from training.output_dir import check_output_dir
from training.pcm.picard_consistency import Distance, Samples, loss_weight
from training.pcm.start_kinds import (
    format_errors,
    held_out_errors,
    loss_of_all,
    start_kinds,
    training_free_errors,
)
from training.pcm.train_pcm_config import TrainPcmConfig
from training.pcm.trajectories import ARRAYS, TrajectoryStore, load_trajectories, open_store
from training.provenance import code_version, command_line, machine
from training.training_loop import batch_rows, generator_for, train, training_outputs

OUTPUTS = training_outputs("pcm-train-pcm", "pcm.safetensors")
CPU = torch.device("cpu")


def train_pcm(config: TrainPcmConfig) -> None:
    """Train a PCM and write `pcm.safetensors` with its best averaged weights into the output directory."""
    with worker(config.device) as this_worker:
        _train(config, this_worker)


def _train(config: TrainPcmConfig, this_worker: Worker) -> None:
    device, output_dir = this_worker.device, Path(config.output_dir)
    if this_worker.is_first:  # fails now, not after the trajectories are read
        check_output_dir(output_dir, OUTPUTS, overwrite=config.overwrite)
    base = DiffusionPolicy.load(config.checkpoint, device)
    store = open_store(config.trajectories)
    _check_store(store, base, config)
    T, K = store.whole_number("steps"), store.whole_number("iterations")
    trained_iterations = config.iterations or K
    _check_iterations(config, trained_iterations, K)
    validated_iterations = min(config.validated_iterations, K)
    held_out, training_samples = _load_samples(
        store, config.held_out_samples, device, cold_starts=config.cold_starts
    )
    count = len(training_samples.states)
    batch_size = config.training.batch_size
    if count < batch_size:
        raise ValueError(f"batch_size {batch_size} exceeds the {count} training samples")
    training = replace(config.training, steps=config.epochs * (count // batch_size))

    is_warm = bool((held_out.executed > 0).any())
    trained_for = PCM(
        deepcopy(base.network),
        weights=config.weights,
        base_sha256=weights_sha256(base.network),
        solver=store.text("solver"),
        steps=T,
        jacobian=store.text("jacobian"),
        start=store.text("start"),
        iterations=trained_iterations if bool((held_out.executed == 0).any()) else 0,
        start_model=config.start_model if config.cold_starts else "base",
        warm_start=store.text("warm_start") if is_warm else "none",
        warm_iterations=trained_iterations if is_warm else 0,
        rank=config.rank if config.weights == "lora" else 0,
        targets=config.targets if config.weights == "lora" else "",
    )
    solver = base.with_sampler(trained_for.picard).solver
    kinds = start_kinds(trained_for, base, solver)
    network = _initial_network(config, trained_for, base)
    averaged = deepcopy(network).requires_grad_(False)
    frozen_base = deepcopy(base.network).requires_grad_(False)
    share = this_worker.share(batch_size)
    first = base.config.observation_steps - 1
    distance = Distance(
        config.final_state_weight,
        config.floor,
        states_weight=config.states_weight,
        chunk_weight=config.chunk_weight,
        chunk=(first, first + base.config.action_steps),
    )
    columns = [kind.columns(validated_iterations) for kind in kinds]
    training_free = [training_free_errors(kind, held_out, validated_iterations) for kind in kinds]
    provenance = {
        "trajectories": dict(store.identity),
        "code": code_version(),
        "command": command_line(),
        "machine": machine(device),
        "initial_sha256": None if config.initial is None else file_sha256(config.initial),
    }

    def loss(trained: nn.Module, step: int) -> Tensor:
        rows = batch_rows(count, batch_size, seed=training.seed, step=step)[share].to(device)
        # One k for all samples of a kind: the same on every worker.
        generator = generator_for(training.seed, step, CPU)
        starts = trained_iterations - config.unrolled_iterations + 1
        ks = [
            0 if kind.picard.start is not None else int(torch.randint(starts, (), generator=generator))
            for kind in kinds
        ]
        weigh = partial(loss_weight, config.loss_weight, iterations=trained_iterations, solver=solver)
        return loss_of_all(
            cast(ConditionalUnet1D, trained),
            kinds,
            training_samples.rows(rows),
            weights=[weigh(k) for k in ks],
            ks=ks,
            distance=distance,
            relative=config.loss_weight == "training_free",
            unrolled_iterations=config.unrolled_iterations,
            base=frozen_base,
            base_iterations=config.base_iterations,
            base_weight=config.base_weight,
        )

    path = output_dir / "pcm.safetensors"
    best = float("inf")
    if (output_dir / "training_state.safetensors").exists() and path.exists():
        best = _measured(path, load_pcm(path, base.network), "error_ratio")

    def validate(weights: nn.Module, step: int) -> dict[str, float]:
        nonlocal best
        assert isinstance(weights, ConditionalUnet1D)
        numbers: dict[str, float] = {}
        ratios: list[float] = []
        for kind, names, free in zip(kinds, columns, training_free, strict=True):
            errors, switched = held_out_errors(
                weights,
                base.network,
                kind.picard,
                samples=kind.of(held_out),
                iterations=validated_iterations,
            )
            # Sampled as trained, or else the better of both ways.
            chosen = switched if config.base_iterations else np.minimum(errors, switched)
            counted = slice(kind.inexact(validated_iterations))
            ratios += list(np.divide(chosen[counted], free[counted]))
            for name, *found in zip(names, free, errors, switched, strict=True):
                numbers |= dict(zip(name, found, strict=True))
        # The number that selects the weights: geometric mean of the errors relative to no training.
        ratio = float(np.exp(np.log(ratios).mean()))
        numbers = {"error_ratio": ratio} | numbers
        if ratio < best:
            best = ratio
            found_provenance = {**provenance, "training_steps": step, **numbers}
            save_pcm(path, replace(trained_for, network=weights, provenance=found_provenance))
        return numbers

    identity = asdict(config)
    for name in ("training", "checkpoint", "trajectories", "output_dir", "device", "overwrite"):
        del identity[name]
    identity |= {"store": dict(store.identity), "initial": provenance["initial_sha256"]}
    log_columns = ["error_ratio", *(name for kind in columns for names in kind for name in names)]
    train(
        network,
        averaged,
        loss,
        validate=validate,
        validation_columns=log_columns,
        config=training,
        worker=this_worker,
        output_dir=output_dir,
        outputs=OUTPUTS,
        overwrite=config.overwrite,
        identity=identity,
    )
    if this_worker.is_first:
        pcm = load_pcm(path, base.network)
        numbers = {name: _measured(path, pcm, name) for name in log_columns}
        print(format_errors(numbers, kinds, validated_iterations))
        print(f"PCM: {path}")


def _check_store(store: TrajectoryStore, base: DiffusionPolicy, config: TrainPcmConfig) -> None:
    """Refuse trajectories of another base or covariance, or with a start that the PCM cannot make."""
    expected, found = store.text("base_sha256"), weights_sha256(base.network)
    if expected != found:
        raise ValueError(
            f"{config.trajectories}: trajectories of a base whose weights have sha256 {expected[:12]}…; "
            f"those of {config.checkpoint} have {found[:12]}…"
        )
    if base.covariance is not None and store.identity.get("covariance_sha256"):
        expected, found = store.text("covariance_sha256"), tensors_sha256({"": base.covariance})
        if expected != found:
            raise ValueError(
                f"{config.trajectories}: trajectories by a covariance with sha256 {expected[:12]}…; "
                f"that of {config.checkpoint} has {found[:12]}…"
            )
    if config.start_model == "pcm" and store.text("start") != "gaussian":
        raise ValueError("start_model=pcm needs trajectories with the start gaussian")


def _check_iterations(config: TrainPcmConfig, trained: int, most: int) -> None:
    """Refuse numbers of iterations that the trajectories do not have, or that do not fit together."""
    if not config.unrolled_iterations <= trained <= most:
        raise ValueError(
            f"iterations must be in {config.unrolled_iterations} (unrolled_iterations) … {most} "
            f"(those of the trajectories), got {trained}"
        )
    if trained + config.base_iterations > most:
        raise ValueError(
            f"iterations + base_iterations must be at most {most} (those of the trajectories), "
            f"got {trained} + {config.base_iterations}"
        )
    if config.start_model == "pcm" and trained != config.unrolled_iterations:
        raise ValueError(
            f"with start_model=pcm all iterations are trained through from the noise on: iterations must be "
            f"unrolled_iterations, {config.unrolled_iterations}, got {trained}"
        )


def _initial_network(config: TrainPcmConfig, pcm: PCM, base: DiffusionPolicy) -> ConditionalUnet1D:
    """The network to train: the base's, with new adapters where only they are trained, or that of another PCM."""
    if config.initial is None:
        if config.weights == "lora":
            generator = torch.Generator().manual_seed(config.training.seed)
            add_lora(pcm.network, rank=config.rank, targets=config.targets, generator=generator)
        return pcm.network
    initial = load_pcm(config.initial, base.network)
    for name in ("weights", "rank", "targets"):
        found, expected = getattr(initial, name), getattr(pcm, name)
        if found != expected:
            raise ValueError(f"initial={config.initial} has {name}={found}, not {name}={expected}")
    return initial.network


def _load_samples(
    store: TrajectoryStore, held_out_samples: int, device: torch.device, *, cold_starts: bool
) -> tuple[Samples, Samples]:
    """Held-out samples, and those to train on; without `cold_starts` only those that start warm."""
    trajectories = load_trajectories(store)
    samples = Samples(*(torch.from_numpy(getattr(trajectories, name)).to(device) for name in ARRAYS))
    if not cold_starts:
        samples = samples.rows(samples.executed > 0)
        if not len(samples.states):
            raise ValueError(f"cold_starts=false leaves nothing: no sample of {store.path} starts warm")
    if held_out_samples >= (count := len(samples.states)):
        raise ValueError(f"held_out_samples {held_out_samples} leave none of {count} to train on")
    return samples.rows(slice(held_out_samples)), samples.rows(slice(held_out_samples, None))


def _measured(path: Path, pcm: PCM, name: str) -> float:
    """A number that a training has left in its PCM. Raises CheckpointError if it is none."""
    value = pcm.provenance.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise CheckpointError(
            f"{path}: bad header (provenance.{name} must be a number that is not negative, got {value!r:.100})"
        )
    return float(value)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("train_pcm", TrainPcmConfig, train_pcm, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
