"""What the covariance of preconditioned Picard iteration, and the options of PCM training, are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig
from policy.checkpoint import file_sha256
from policy.pcm import weights_sha256
from training.benchmark.candidates import Candidate, at_depths, load_pcm_files, pcm_candidates
from training.benchmark.config import AblationsConfig, BenchmarkConfig
from training.benchmark.covariances import covariances
from training.benchmark.measurements import accuracy_measure
from training.benchmark.report import held_out_observations, load_policy, write_report
from training.benchmark.reports.ablations_layout import describe_ablations, format_ablations, plot_ablations
from training.benchmark.row_cache import Row, RowCache, Task
from training.command import load_config
from training.data.demonstrations import load_demonstrations
from training.pcm.train_pcm import TrainPcmConfig, train_pcm
from training.pcm.trajectories import open_store
from training.provenance import machine

FORWARD_AND_BACKWARD = 3
"""Evaluations that a training step takes as long as, for each sample and timestep."""


@dataclass(frozen=True)
class Variant:
    """A row of a table of the report: errors by depth.

    Attributes:
        ablation: which table.
        name: what it is called there.
        steps: T.
        initialisation: its initial trajectory.
        task: how to measure it.
    """

    ablation: str
    name: str
    steps: int
    initialisation: str
    task: Task


def report(config: BenchmarkConfig) -> None:
    """Write the report `ablations`.

    Raises:
        ValueError: if the policy has no covariance, or the trajectories are none to train on for this report.
    """
    options = config.ablations
    base = load_policy(config)
    observations = held_out_observations(config, base)
    device = base.solver.a.device
    shared = {
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "device": machine(device)["device"],
        "observations_sha256": weights_sha256({"": observations}),
        "seed": config.seed,
        "depths": options.depths,
    }
    cache = RowCache(Path(config.output_dir) / "ablations_rows", shared)
    variants = [
        *_covariance_variants(config, base, observations),
        *_training_variants(config, base, observations, cache),
    ]
    cache.measure_all(sorted((variant.task for variant in variants), key=lambda task: task.cost), "ablations")
    found = [(variant, cache.read(variant.task)) for variant in variants]
    rows = [
        {
            "ablation": variant.ablation,
            "variant": variant.name,
            "steps": variant.steps,
            "initialisation": variant.initialisation,
            **errors,
        }
        for variant, row in found
        for errors in row["errors"]
    ]
    if not rows:
        raise ValueError(f"none of ablations.depths {options.depths} is below any of steps {config.steps}")
    write_report(
        config,
        "Ablations",
        describe_ablations(options, config.conditions),
        format_ablations(rows),
        rows,
        plot_ablations(rows),
        {"rows_measured_by_code": sorted({row["code"] for _, row in found})},
    )


def _covariance_variants(
    config: BenchmarkConfig, base: DiffusionPolicy, observations: Tensor
) -> Iterator[Variant]:
    """Preconditioned Picard iteration with other covariances, which changes its speed and not its fixed point."""
    options = config.ablations
    demonstrations = load_demonstrations(config.demonstrations)
    found = covariances(base, demonstrations, config.held_out_episodes, options.isotropic)
    for name, covariance in found.items():
        policy = replace(base, covariance=covariance)
        for steps in config.steps:
            for initialisation in ("fresh", "gaussian"):
                sampler = SamplerConfig("picard", steps, initialisation=initialisation)
                candidates = [Candidate(name, *at_depth) for at_depth in at_depths(sampler, options.depths)]
                task = Task(
                    f"covariance {name}, T = {steps}, {initialisation}",
                    sum(candidate.evaluations for candidate in candidates) * len(observations),
                    {
                        "covariance_sha256": weights_sha256({"": covariance}),
                        "candidates": [candidate.identity for candidate in candidates],
                    },
                    partial(_errors, policy, candidates, observations, config.seed),
                )
                yield Variant("covariance", name, steps, initialisation, task)


def _training_variants(
    config: BenchmarkConfig, base: DiffusionPolicy, observations: Tensor, cache: RowCache
) -> Iterator[Variant]:
    """No training, a training as configured, and those that differ from it in one thing each."""
    options = config.ablations
    if options.trajectories is None:
        return
    store = open_store(options.trajectories)
    steps, initialisation = int(store.identity["steps"]), store.identity["initialisation"]
    sampler = SamplerConfig(
        "picard",
        steps,
        solver=store.identity["solver"],
        formulation=store.identity["formulation"],
        initialisation=initialisation,
    )
    untrained = [Candidate("", *at_depth) for at_depth in at_depths(sampler, options.depths)]
    if not untrained:
        raise ValueError(
            f"none of ablations.depths {options.depths} is below {steps}, T of {options.trajectories}"
        )
    cost = sum(candidate.evaluations for candidate in untrained) * len(observations)
    task = Task(
        "no training",
        cost,
        {"candidates": [candidate.identity for candidate in untrained]},
        partial(_errors, base, untrained, observations, config.seed),
    )
    yield Variant("training", "none", steps, initialisation, task)

    first = _training_config(options, [])
    changes: dict[str, list[str]] = {
        f"rank {first.rank}, α {first.loss_weight}, averaged weights": [],
        **{f"α {kind}": [f"loss_weight={kind}"] for kind in options.loss_weights},
        **({"last weights, not averaged": ["training.ema_max_decay=0"]} if options.without_ema else {}),
        **{f"rank {rank}": [f"rank={rank}"] for rank in options.ranks},
    }
    for name, arguments in changes.items():
        training = _training_config(options, arguments)
        identity = {
            "store": dict(store.identity),
            "training": _decisive(training),
            "stiffness": options.stiffness,
        }
        training = replace(
            training,
            checkpoint=config.checkpoint,
            trajectories=options.trajectories,
            # Named after all that decides it, so that a training that was interrupted goes on, and no other one.
            output_dir=str(cache.path(identity).with_suffix("")),
            device=config.device,
        )
        task = Task(
            f"training, {name}",
            cost + FORWARD_AND_BACKWARD * steps * store.samples * training.epochs,
            identity,
            partial(_train, training, base, options, observations, config.seed),
        )
        yield Variant("training", name, steps, initialisation, task)


def _training_config(options: AblationsConfig, changes: Sequence[str]) -> TrainPcmConfig:
    """What all trainings share, with changes; without paths and device."""
    required = ["trajectories=-", "output_dir=-"]
    return load_config("train_pcm", TrainPcmConfig, [*required, *options.training, *changes])


def _decisive(training: TrainPcmConfig) -> dict[str, Any]:
    paths = ("checkpoint", "trajectories", "output_dir", "device")
    return {name: value for name, value in asdict(training).items() if name not in paths}


def _train(
    training: TrainPcmConfig, base: DiffusionPolicy, options: AblationsConfig, observations: Tensor, seed: int
) -> Row:
    train_pcm(training)
    (file,) = load_pcm_files([str(Path(training.output_dir) / "pcm.safetensors")], base)
    # One stiffness after the other, so that those which are the same at a depth are all in the table.
    candidates = [row for s in options.stiffness for row in pcm_candidates(file, options.depths, [s])]
    name = candidates[0].sampler.name  # of adapters also in feature space, which is left out
    return _errors(base, [row for row in candidates if row.sampler.name == name], observations, seed)


def _errors(policy: DiffusionPolicy, candidates: Sequence[Candidate], observations: Tensor, seed: int) -> Row:
    """`errors`: a list of `stiffness`, which is None without a PCM, `depth`, `error_p50` and `error_p95`."""
    errors: list[Row] = []
    if not candidates:
        return {"errors": errors}
    # All of the same T, so that they share one sequential answer.
    measure = accuracy_measure(policy, observations, seed, candidates[0].sampler.steps)
    for candidate in candidates:
        row = measure(candidate)
        row["stiffness"] = candidate.sampler.stiffness if candidate.sampler.uses_pcm else None
        errors.append({name: row[name] for name in ("stiffness", "depth", "error_p50", "error_p95")})
    return {"errors": errors}
