"""How fast parallel samplers approach the sequential answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from policy import DiffusionPolicy, SamplerConfig
from policy.denoiser import make_denoise
from policy.sampling import sample_picard, sample_sequential
from policy.sampling.initial import INITIALISATIONS, initial_trajectory
from policy.sampling.recurrence import FORMULATIONS, make_recurrence
from policy.sampling.sampler import Draw
from training.benchmark.config import BenchmarkConfig
from training.benchmark.report import held_out_observations, load_policy, write_report


@dataclass(frozen=True)
class ConvergenceRow:
    """Error after some iterations: the largest difference of a normalised action from sequential DDIM at the same T.

    Attributes:
        sampler, formulation, initialisation, steps: as in `SamplerConfig`.
        iterations: of the sampler.
        depth: network evaluations one after the other, the initial trajectory's included.
        error_p50, error_p95: percentiles over observations.
    """

    sampler: str
    formulation: str
    initialisation: str
    steps: int
    iterations: int
    depth: int
    error_p50: float
    error_p95: float


@torch.no_grad()
def measure_convergence(
    policy: DiffusionPolicy, observations: Tensor, steps: Sequence[int], iterations: int, seed: int
) -> list[ConvergenceRow]:
    """Errors of every formulation and initial trajectory at every number of steps.

    Args:
        policy: with a covariance.
        observations: (B, observation_steps, observation_dim) in px.
        steps: numbers of solver steps T.
        iterations: how many to follow, at most T.
        seed: of the noises, the same for all samplers.

    Raises:
        ValueError: if the policy has no covariance.
    """
    if policy.covariance is None:
        raise ValueError("the checkpoint has no covariance; add it with pcm-estimate-covariance")
    rows = []
    kinds = [(f, i) for f in FORMULATIONS for i in INITIALISATIONS]
    progress = tqdm([(T, *kind) for T in steps for kind in kinds], desc="convergence", unit="sampler")
    for T, formulation, initialisation in progress:
        solver = policy.with_sampler(SamplerConfig("ddim", T)).solver
        condition = policy.normalizer.observation.normalize(observations.to(solver.a)).flatten(1)
        denoise = make_denoise(policy.network, solver, condition)
        generator = torch.Generator().manual_seed(seed)
        shape = (policy.config.horizon, policy.config.action_dim)
        x0 = torch.randn((len(observations), *shape), generator=generator).to(solver.a)
        exact = sample_sequential(denoise, solver, x0)[:, -1]
        states, first = initial_trajectory(
            initialisation,
            denoise,
            solver,
            x0,
            _draw_from(generator, x0),
            policy.covariance,
        )
        recurrence = make_recurrence(formulation, solver, policy.covariance)
        for done in range(min(iterations, T - first) + 1):
            if done > 0:
                # One more iteration of the same trajectory: with the states so far frozen, as inside the sampler.
                sample_picard(denoise, solver, states, recurrence, 1, first=first + done - 1)
            error = (states[:, -1] - exact).abs().amax((1, 2)).double().cpu()
            p50, p95 = (float(np.percentile(error, q)) for q in (50, 95))
            rows.append(
                ConvergenceRow("picard", formulation, initialisation, T, done, done + first, p50, p95)
            )
    return rows


def _draw_from(generator: torch.Generator, like: Tensor) -> Draw:
    return lambda shape: torch.randn(shape, generator=generator).to(like)


def format_convergence(rows: Sequence[ConvergenceRow], depths: Sequence[int]) -> str:
    """A Markdown table for each number of steps: the 95th percentile of the error by depth."""
    parts = []
    for T in sorted({row.steps for row in rows}):
        shown = [depth for depth in depths if depth <= T]
        lines = [
            f"### T = {T}\n",
            "| formulation | initial trajectory | " + " | ".join(f"depth {depth}" for depth in shown) + " |",
            "|---|---|" + "---:|" * len(shown),
        ]
        for kind in dict.fromkeys((row.formulation, row.initialisation) for row in rows):
            errors = {
                row.depth: row.error_p95
                for row in rows
                if row.steps == T and (row.formulation, row.initialisation) == kind
            }
            cells = [f"{errors[depth]:.2g}" if depth in errors else "" for depth in shown]
            lines.append(f"| {kind[0]} | {kind[1]} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def plot_convergence(rows: Sequence[ConvergenceRow]) -> Figure:
    """Error over depth, a panel for each number of steps, a colour for each formulation."""
    steps = sorted({row.steps for row in rows})
    figure = Figure(figsize=(4.2 * len(steps), 4), layout="constrained")
    styles = dict(zip(INITIALISATIONS, (":", "--", "-"), strict=True))
    colors = dict(zip(FORMULATIONS, ("0.6", "tab:orange", "tab:blue", "tab:green"), strict=True))
    panels = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    for axes, T in zip(panels, steps, strict=True):
        for formulation in FORMULATIONS:
            for initialisation in INITIALISATIONS:
                curve = [
                    (row.depth, row.error_p95)
                    for row in rows
                    if (row.steps, row.formulation, row.initialisation) == (T, formulation, initialisation)
                ]
                axes.plot(
                    *zip(*curve, strict=True),
                    styles[initialisation],
                    color=colors[formulation],
                    label=f"{formulation}, {initialisation}",
                )
        axes.set(title=f"T = {T}", xlabel="depth", yscale="log", ylim=(1e-6, 5))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("95th percentile of the largest error")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def report(config: BenchmarkConfig) -> None:
    """Write the report `convergence`."""
    policy = load_policy(config)
    observations = held_out_observations(config, policy)
    rows = measure_convergence(policy, observations, config.steps, config.iterations, config.seed)
    write_report(
        config,
        "Convergence to the sequential answer",
        "95th percentile over held-out observations of the largest difference of a normalised action from sequential "
        "DDIM with the same noise and T. Depth counts network evaluations one after the other.",
        format_convergence(rows, depths=(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)),
        [asdict(row) for row in rows],
        plot_convergence(rows),
    )
