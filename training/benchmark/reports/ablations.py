"""What the covariance of preconditioned Picard iteration, and the options of PCM training, are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from pandas import DataFrame, isna
from torch import Tensor

from policy import DiffusionPolicy, PicardConfig, SamplerConfig
from policy.checkpoint import tensors_sha256
from training.benchmark.candidates import Candidate, at_depths, load_pcm_files, pcm_candidates
from training.benchmark.config import AblationsConfig, BenchmarkConfig
from training.benchmark.covariances import covariances
from training.benchmark.measurements import accuracy_measure
from training.benchmark.report import (
    held_out_observations,
    load_policy,
    open_cache,
    read_demonstrations,
    write_report,
)
from training.benchmark.row_cache import Row, RowCache, Task
from training.benchmark.tables import markdown_table
from training.command import load_config
from training.pcm.train_pcm import train_pcm
from training.pcm.train_pcm_config import TrainPcmConfig
from training.pcm.trajectories import open_store

LINESTYLES = (":", "-", "--", "-.")
FORWARD_AND_BACKWARD = 3
"""Evaluations that a training step takes as long as, for each sample and timestep."""


@dataclass(frozen=True)
class Variant:
    """A row of a table of the report: errors by depth.

    Attributes:
        ablation: which table.
        name: what it is called there.
        steps: T.
        start: of Picard iteration.
        task: how to measure it.
    """

    ablation: str
    name: str
    steps: int
    start: str
    task: Task


def report(config: BenchmarkConfig) -> None:
    """Write the report `ablations`.

    Raises:
        ValueError: if the policy has no covariance, or the trajectories are none to train on for this report.
    """
    options = config.ablations
    base = load_policy(config)
    observations = held_out_observations(config, base)
    cache = open_cache(
        config,
        base,
        observations_sha256=tensors_sha256({"": observations}),
        seed=config.seed,
        depths=options.depths,
    )
    variants = [
        *_covariance_variants(config, base, observations),
        *_training_variants(config, base, observations, cache=cache),
    ]
    cache.measure_all(sorted((variant.task for variant in variants), key=lambda task: task.cost), "ablations")
    measured = [cache.read(variant.task) for variant in variants]
    rows = DataFrame(
        [
            {
                "ablation": variant.ablation,
                "variant": variant.name,
                "steps": variant.steps,
                "start": variant.start,
                **errors,
            }
            for variant, row in zip(variants, measured, strict=True)
            for errors in row["errors"]
        ]
    )
    if rows.empty:
        raise ValueError(f"none of ablations.depths {options.depths} is below any of steps {config.steps}")
    write_report(
        config,
        rows,
        title="Ablations",
        introduction=describe_ablations(options, config.observations),
        tables=format_ablations(rows),
        figures={"": plot_ablations(rows)},
        measured=measured,
    )


def _covariance_variants(
    config: BenchmarkConfig, base: DiffusionPolicy, observations: Tensor
) -> Iterator[Variant]:
    """Preconditioned Picard iteration with other covariances, which changes its speed and not its fixed point."""
    options = config.ablations
    found = covariances(
        base,
        read_demonstrations(config, base.task),
        held_out_episodes=config.held_out_episodes,
        isotropic=options.isotropic,
    )
    for name, covariance in found.items():
        policy = replace(base, covariance=covariance)
        for steps in config.steps:
            for start in ("fresh", "gaussian"):
                sampler = SamplerConfig("picard", "ddim", steps, picard=PicardConfig("preconditioned", start))
                candidates = list(at_depths(sampler, options.depths))
                task = Task(
                    label=f"covariance {name}, T = {steps}, {start}",
                    cost=sum(candidate.evaluations for candidate in candidates) * len(observations),
                    identity={
                        "covariance_sha256": tensors_sha256({"": covariance}),
                        "candidates": [candidate.identity for candidate in candidates],
                    },
                    measure=partial(_errors, policy, candidates, observations, seed=config.seed),
                )
                yield Variant(ablation="covariance", name=name, steps=steps, start=start, task=task)


def _training_variants(
    config: BenchmarkConfig, base: DiffusionPolicy, observations: Tensor, *, cache: RowCache
) -> Iterator[Variant]:
    """No training, a training as configured, and those that differ from it in one thing each."""
    options = config.ablations
    if options.trajectories is None:
        return
    store = open_store(options.trajectories)
    steps, start = store.whole_number("steps"), store.text("start")
    sampler = SamplerConfig(
        "picard", store.text("solver"), steps, picard=PicardConfig(store.text("jacobian"), start)
    )
    untrained = list(at_depths(sampler, options.depths))
    if not untrained:
        raise ValueError(
            f"none of ablations.depths {options.depths} is below {steps}, T of {options.trajectories}"
        )
    cost = sum(candidate.evaluations for candidate in untrained) * len(observations)
    task = Task(
        label="no training",
        cost=cost,
        identity={"candidates": [candidate.identity for candidate in untrained]},
        measure=partial(_errors, base, untrained, observations, seed=config.seed),
    )
    yield Variant(ablation="training", name="none", steps=steps, start=start, task=task)

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
            label=f"training, {name}",
            cost=cost + FORWARD_AND_BACKWARD * steps * store.samples * training.epochs,
            identity=identity,
            measure=partial(_train, training, base, options, observations=observations, seed=config.seed),
        )
        yield Variant(ablation="training", name=name, steps=steps, start=start, task=task)


def _training_config(options: AblationsConfig, changes: Sequence[str]) -> TrainPcmConfig:
    """What all trainings share, with changes; without paths and device."""
    required = ["trajectories=-", "output_dir=-"]
    return load_config("train_pcm", TrainPcmConfig, [*required, *options.training, *changes])


def _decisive(training: TrainPcmConfig) -> dict[str, Any]:
    paths = ("checkpoint", "trajectories", "output_dir", "device", "overwrite")
    return {name: value for name, value in asdict(training).items() if name not in paths}


def _train(
    training: TrainPcmConfig,
    base: DiffusionPolicy,
    options: AblationsConfig,
    *,
    observations: Tensor,
    seed: int,
) -> Row:
    train_pcm(training)
    (file,) = load_pcm_files([str(Path(training.output_dir) / "pcm.safetensors")], base)
    # One stiffness after the other, so that those which are the same at a depth are all in the table.
    found = [row for s in options.stiffness for row in pcm_candidates(file, options.depths, [s])]
    # Adapters can be sampled in feature space too, which is left out.
    candidates = [row for row in found if row.sampler.pcm.space == found[0].sampler.pcm.space]
    return _errors(base, candidates, observations, seed=seed)


def _errors(
    policy: DiffusionPolicy, candidates: Sequence[Candidate], observations: Tensor, *, seed: int
) -> Row:
    """`errors`: a list of `stiffness`, which is None without a PCM, `depth`, `error_p50` and `error_p95`."""
    errors: list[Row] = []
    if not candidates:
        return {"errors": errors}
    # All of the same T, so that they share one sequential answer.
    measure = accuracy_measure(policy, observations, seed=seed, reference_steps=candidates[0].sampler.steps)
    for candidate in candidates:
        row = measure(candidate)
        row["stiffness"] = candidate.columns["stiffness"]
        errors.append({name: row[name] for name in ("stiffness", "depth", "error_p50", "error_p95")})
    return {"errors": errors}


def describe_ablations(options: AblationsConfig, observations: int) -> str:
    """What the tables show."""
    text = (
        f"95th percentile over {observations} held-out observations of the largest difference of a normalised action "
        "from the sequential answer with the same noise, solver and T, by depth: sequential network evaluations, those "
        "of the start included.\n\n"
        "Covariances Σ of preconditioned Picard iteration, which needs no training: of the policy's own samples given "
        "the observation, as in the checkpoint; its diagonal; s²·I; of the demonstrations' action sequences, whatever "
        "the observation; and the same of what a linear regression on the observation leaves."
    )
    if options.trajectories is not None:
        text += (
            " Trainings have the same short budget, and differ from the first one by what their names say: "
            f"`{' '.join(options.training)}`. They are sampled as they were trained, with stiffness s."
        )
    return text


def format_ablations(rows: DataFrame) -> str:
    """A Markdown table of errors by depth for each ablation and T."""
    parts = []
    for (ablation, steps), panel in rows.groupby(["ablation", "steps"]):
        curves = panel.assign(sampled=panel.apply(_sampled, axis=1))
        errors = curves.pivot(index=["variant", "sampled"], columns="depth", values="error_p95")
        errors = errors.loc[list(dict.fromkeys(zip(curves["variant"], curves["sampled"], strict=True)))]
        columns = {"variant": (ablation, ""), "sampled": ("sampled", "")}
        columns |= {depth: (f"depth {depth}", ".2g") for depth in errors}
        cells = markdown_table(errors.reset_index(), columns, text_columns=2)
        parts.append(f"### {ablation.capitalize()}, T = {steps}\n\n{cells}")
    return "\n\n".join(parts)


def plot_ablations(rows: DataFrame) -> Figure:
    """Error over depth, a panel for each ablation and T, a colour for each variant."""
    rows = rows.assign(sampled=rows.apply(_sampled, axis=1))
    panels = rows.groupby(["ablation", "steps"])
    longest = max(len(panel[["variant", "sampled"]].drop_duplicates()) for _, panel in panels)  # legend
    heights = (4.0, 0.17 * longest + 0.2)
    figure = Figure(figsize=(4.2 * len(panels), sum(heights)), layout="constrained")
    all_axes, legends = figure.subplots(2, len(panels), sharey="row", squeeze=False, height_ratios=heights)
    for axes, legend, ((ablation, steps), panel) in zip(all_axes, legends, panels, strict=True):
        variants, ways = list(panel["variant"].unique()), list(panel["sampled"].unique())
        for (variant, way), curve in panel.groupby(["variant", "sampled"], sort=False):
            curve = curve.sort_values("depth")
            axes.plot(
                curve["depth"],
                curve["error_p95"],
                LINESTYLES[ways.index(way) % len(LINESTYLES)],
                marker=".",
                color=f"C{variants.index(variant)}",
                label=f"{variant}, {way}",
            )
        axes.set(title=f"{ablation}, T = {steps}", xlabel="depth", yscale="log")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        legend.set_axis_off()
        legend.legend(handles=axes.get_lines(), loc="upper center", fontsize=7, handlelength=4)
    all_axes[0].set_ylabel("95th percentile of the largest error")
    return figure


def _sampled(row: Any) -> str:
    start = f"{row['start']} start"
    return start if isna(row["stiffness"]) else f"{start}, s = {row['stiffness']:g}"
