"""What the report `convergence` follows from iteration to iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from policy import DiffusionPolicy, SamplerConfig
from policy.denoiser import Denoise, make_denoise
from policy.sampling import sample_picard, sample_sequential
from policy.sampling.newton import sample_newton
from policy.sampling.recurrence import FORMULATIONS, make_recurrence
from policy.sampling.start import INITIALISATIONS, initial_calls, make_start
from policy.sampling.switching import switching_weights
from policy.solvers.solver import Solver
from training.benchmark.candidates import Candidate, PCMFile
from training.benchmark.config import BenchmarkConfig
from training.benchmark.measurements import accuracy_measure

STIFFNESS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
MEMORY = 2
UNTRAINED = "untrained"
ACCELERATED = (("drift", "fresh"), ("semilinear", "fresh"), ("preconditioned", "gaussian"))
"""Formulations and initial trajectories that are followed with that memory too."""
ROUNDING = 1e-6  # largest error of a normalised action that is the same in single precision


class Point(NamedTuple):
    """Error after some iterations: largest difference of a normalised action from sequential sampling at the same T.

    Attributes:
        iterations: of the sampler.
        depth: network evaluations one after the other, the initial trajectory's included.
        error_p50, error_p95: percentiles over observations.
    """

    iterations: int
    depth: int
    error_p50: float
    error_p95: float


@dataclass(frozen=True)
class Setting:
    """What all curves are measured with.

    Attributes:
        policy: with a covariance.
        observations: (B, observation_steps, observation_dim) in px.
        iterations: how many to follow at most.
        seed: of the noises, the same for all.
    """

    policy: DiffusionPolicy
    observations: Tensor
    iterations: int
    seed: int

    def generators(self) -> tuple[torch.Generator, torch.Generator]:
        """Sources of x₀ and of all further noise, as those of `accuracy_measure`."""
        return torch.Generator().manual_seed(self.seed), torch.Generator().manual_seed(self.seed + 1)


@dataclass(frozen=True)
class Curve:
    """One sampler.

    Attributes:
        sampler, formulation, initialisation, steps, stiffness: what it is called in the report; the stiffness is None
            for samplers without a PCM.
        follow: its points.
        cost: in network evaluations for each observation, roughly.
        decisive: what else decides the points (JSON values).
    """

    sampler: str
    formulation: str
    initialisation: str
    steps: int
    follow: Callable[[Setting], Iterator[Point]]
    cost: float
    stiffness: float | None = None
    decisive: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        stiffness = "" if self.stiffness is None else f", s = {self.stiffness:g}"
        return f"{self.sampler}, {self.formulation}, {self.initialisation}, T = {self.steps}{stiffness}"


def curves(config: BenchmarkConfig, pcms: Sequence[PCMFile]) -> list[Curve]:
    """All curves of the report: without a PCM at every T, with one at the T that it was trained for."""
    found = []
    for steps in config.steps:
        cost = steps * min(config.iterations, steps)
        for initialisation in INITIALISATIONS:
            for formulation in FORMULATIONS:
                follow = partial(follow_picard, steps, formulation, initialisation)
                found.append(Curve("picard", formulation, initialisation, steps, follow, cost))
            newton = partial(follow_newton, steps, initialisation)
            found.append(Curve("newton", "newton", initialisation, steps, newton, 8 * cost))
        found += _accelerated_curves(steps, cost)
    for file in pcms:
        suffix = f":{file.path.stem}" if len(pcms) > 1 else ""
        found.append(_untrained_curve(suffix, file, config.iterations))
        for name in ("pcm", "pcm_lora") if file.pcm.method == "lora" else ("pcm",):
            found += [_pcm_curve(name, suffix, file, stiffness, config.iterations) for stiffness in STIFFNESS]
    return found


def _accelerated_curves(steps: int, cost: float) -> Iterator[Curve]:
    for formulation, initialisation in ACCELERATED:
        sampler = SamplerConfig(
            "picard", steps, formulation=formulation, initialisation=initialisation, memory=MEMORY
        )
        follow = partial(follow_predictions, sampler, None)
        yield Curve(f"picard_memory_{MEMORY}", formulation, initialisation, steps, follow, 3 * cost)
    # In sub-intervals of one step it is Picard iteration in the drift formulation.
    length = next((length for length in range(2, steps) if steps % length == 0), None)
    if length is not None:
        sampler = SamplerConfig("parasolver", steps, sub_intervals=steps // length)
        follow = partial(follow_predictions, sampler, None)
        yield Curve("parasolver", "drift", "parasolver", steps, follow, 3 * cost)


def _untrained_curve(suffix: str, file: PCMFile, iterations: int) -> Curve:
    """The sampler that a PCM is used in, without it."""
    pcm = file.pcm
    follow = partial(follow_predictions, pcm.picard, None)
    cost = pcm.steps * min(iterations, pcm.steps) ** 2 / 2
    return Curve(
        UNTRAINED + suffix,
        pcm.formulation,
        pcm.initialisation,
        pcm.steps,
        follow,
        cost,
        decisive={"solver": pcm.solver},
    )


def _pcm_curve(name: str, suffix: str, file: PCMFile, stiffness: float, iterations: int) -> Curve:
    pcm = file.pcm
    sampler = replace(pcm.picard, name=name, stiffness=stiffness)
    follow = partial(follow_predictions, sampler, file)
    # A stiffness that weighs the PCM as another one does is the same sampler.
    weights = switching_weights(stiffness, pcm.iterations, iterations)
    decisive = {"pcm": file.sha256, "weights": weights}
    cost = pcm.steps * min(iterations, pcm.steps) ** 2 / 2
    return Curve(
        name + suffix, pcm.formulation, pcm.initialisation, pcm.steps, follow, cost, stiffness, decisive
    )


def follow_picard(steps: int, formulation: str, initialisation: str, setting: Setting) -> Iterator[Point]:
    """Picard iteration, at once: the trajectory of one more iteration is that of the last one, iterated."""
    covariance = setting.policy.covariance

    def iterate(denoise: Denoise, solver: Solver, states: Tensor, first: int) -> int:
        recurrence = make_recurrence(formulation, solver, covariance)
        return sample_picard(denoise, solver, states, recurrence, 1, first=first).iterations

    return _follow(steps, initialisation, iterate, setting)


def follow_newton(steps: int, initialisation: str, setting: Setting) -> Iterator[Point]:
    """Newton's method, whose iterations take as many network evaluations as there are states to change."""

    def iterate(denoise: Denoise, solver: Solver, states: Tensor, first: int) -> int:
        sample_newton(denoise, solver, states, 1, first)
        return solver.steps - first

    for point in _follow(steps, initialisation, iterate, setting):
        yield point
        if point.error_p95 < ROUNDING:
            break


@torch.no_grad()
def _follow(
    steps: int,
    initialisation: str,
    iterate: Callable[[Denoise, Solver, Tensor, int], int],
    setting: Setting,
) -> Iterator[Point]:
    """Points of a sampler that changes (states, with the first so many steps exact) and tells what depth it took."""
    policy, observations = setting.policy, setting.observations
    x0_generator, generator = setting.generators()
    solver = policy.with_sampler(SamplerConfig("ddim", steps)).solver
    condition = policy.normalizer.observation.normalize(observations.to(solver.a)).flatten(1)
    denoise = make_denoise(policy.network, solver, condition)
    shape = (len(observations), policy.config.horizon, policy.config.action_dim)
    x0 = torch.randn(shape, generator=x0_generator).to(solver.a)
    exact = sample_sequential(denoise, solver, x0)[:, -1]
    start = make_start(initialisation, solver, policy.covariance)
    states = start(denoise, x0, lambda shape: torch.randn(shape, generator=generator).to(x0))
    depth = first = initial_calls(initialisation)
    for done in range(min(setting.iterations, steps - first) + 1):
        if done > 0:
            depth += iterate(denoise, solver, states, first + done - 1)
        errors = (states[:, -1].clamp(-1, 1) - exact).abs().amax((1, 2)).double().cpu()
        yield Point(done, depth, *(float(np.percentile(errors, q)) for q in (50, 95)))


def follow_predictions(sampler: SamplerConfig, file: PCMFile | None, setting: Setting) -> Iterator[Point]:
    """The policy's own predictions, anew for every number of iterations until they are exact."""
    measure = accuracy_measure(setting.policy, setting.observations, setting.seed, sampler.steps)
    for iterations in range(1, min(setting.iterations, sampler.steps) + 1):
        at_iterations = replace(sampler, iterations=iterations)
        row = measure(Candidate(sampler.name, at_iterations, 0, file))
        yield Point(iterations, row["depth"], row["error_p50"], row["error_p95"])
        if row["depth"] >= sampler.steps or row["error_p95"] < ROUNDING:
            break
