"""How fast parallel samplers approach the sequential answer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from policy.checkpoint import file_sha256
from policy.pcm import weights_sha256
from training.benchmark.candidates import load_pcm_files
from training.benchmark.config import BenchmarkConfig
from training.benchmark.report import held_out_observations, load_policy, write_report
from training.benchmark.reports.convergence_curves import MEMORY, Curve, Point, Setting, curves
from training.benchmark.reports.convergence_layout import format_convergence, plot_convergence
from training.benchmark.row_cache import Row, RowCache, Task
from training.provenance import machine

INTRODUCTION = (
    "95th percentile over {conditions} held-out observations of the largest difference of a normalised action from "
    "sequential DDIM, or the solver that a PCM was trained for, with the same noise and T. Depth counts network "
    "evaluations one after the other, those for the initial trajectory included. Each iteration of Newton's method "
    "takes as many as there are states that it changes, so that it is shown by iteration. picard_memory_{memory} is "
    "Anderson acceleration over as many earlier iterates, parasolver has sub-intervals of the fewest steps that "
    "divide T, untrained is what a PCM is sampled in, without it."
)


def report(config: BenchmarkConfig) -> None:
    """Write the report `convergence`.

    Raises:
        ValueError: if the policy has no covariance.
    """
    policy = load_policy(config)
    if policy.covariance is None:
        raise ValueError(f"{config.checkpoint} has no covariance; add it with pcm-estimate-covariance")
    setting = Setting(policy, held_out_observations(config, policy), config.iterations, config.seed)
    shared = {
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "device": machine(policy.solver.a.device)["device"],
        "observations_sha256": weights_sha256({"": setting.observations}),
        "iterations": config.iterations,
        "seed": config.seed,
    }
    cache = RowCache(Path(config.output_dir) / "convergence_rows", shared)
    followed = curves(config, load_pcm_files(config.pcm, policy))
    tasks = [_task(curve, setting) for curve in followed]
    cache.measure_all(tasks, "convergence")

    rows = [
        convergence_row(curve, Point(*point))
        for curve, task in zip(followed, tasks, strict=True)
        # There already: this only reads it.
        for point in cache.find_or_measure(task.identity, task.measure)["points"]
    ]
    write_report(
        config,
        "Convergence to the sequential answer",
        INTRODUCTION.format(conditions=len(setting.observations), memory=MEMORY),
        format_convergence(rows),
        rows,
        plot_convergence(rows),
    )


def convergence_row(curve: Curve, point: Point) -> Row:
    """A row of the CSV."""
    return {
        "sampler": curve.sampler,
        "formulation": curve.formulation,
        "initialisation": curve.initialisation,
        "stiffness": curve.stiffness,
        "steps": curve.steps,
        **point._asdict(),
    }


def _task(curve: Curve, setting: Setting) -> Task:
    identity: dict[str, Any] = {
        "sampler": curve.sampler,
        "formulation": curve.formulation,
        "initialisation": curve.initialisation,
        "steps": curve.steps,
        **curve.decisive,
    }
    cost = curve.cost * len(setting.observations)
    return Task(curve.label, cost, identity, partial(_measure, curve, setting))


def _measure(curve: Curve, setting: Setting) -> Row:
    return {"points": [list(point) for point in curve.follow(setting)]}
