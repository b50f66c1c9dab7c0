"""What the report `convergence` follows from iteration to iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from policy import (
    DiffusionPolicy,
    ParallelConfig,
    ParaSolverConfig,
    PcmConfig,
    PicardConfig,
    SamplerConfig,
    StopConfig,
)
from policy.denoiser import make_denoise
from policy.pcm_networks import bind_switch, merged_networks
from policy.sampling import make_recurrence, make_start, picard_iterates, sample_sequential
from policy.sampling.newton import newton_iterates
from policy.sampling.recurrence import JACOBIANS
from policy.sampling.start import STARTS, exact_states
from policy.sampling.switching import SwitchingSchedule, switching_schedule
from training.benchmark.candidates import Candidate, PCMFile
from training.benchmark.config import BenchmarkConfig
from training.benchmark.measurements import accuracy_measure, percentiles

STIFFNESS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
MEMORY = 2
UNTRAINED = "untrained"
ACCELERATED = (("drift", "fresh"), ("semilinear", "fresh"), ("preconditioned", "gaussian"))
"""Jacobians and starts that are followed with that memory too."""
ROUNDING = 1e-6  # largest error of a normalised action that is the same in single precision


class Point(NamedTuple):
    """Error after some iterations: largest difference of a normalised action from sequential sampling at the same T.

    Attributes:
        iterations: of the sampler.
        depth: network evaluations one after the other, those of the start included.
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
        observations: (B, observation_steps, observation_dim) in the task's units.
        iterations: how many to follow at most.
        seed: of the noises, the same for all.
    """

    policy: DiffusionPolicy
    observations: Tensor
    iterations: int
    seed: int


@dataclass(frozen=True)
class Curve:
    """A sampler that is followed.

    Attributes:
        sampler, solver, jacobian, start, steps, stiffness: what it is called in the report; the stiffness is None for
            samplers without a PCM.
        follow: its points.
        cost: in network evaluations for each observation, roughly.
        decisive: what else decides the points (JSON values).
    """

    sampler: str
    solver: str
    jacobian: str
    start: str
    steps: int
    follow: Callable[[Setting], Iterator[Point]]
    cost: float
    stiffness: float | None = None
    decisive: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Any]:
        names = ("sampler", "solver", "jacobian", "start", "stiffness", "steps")
        return {name: getattr(self, name) for name in names}


def curves(config: BenchmarkConfig, pcms: Sequence[PCMFile]) -> list[Curve]:
    """All curves of the report: without a PCM at every T, with one at the T that it was trained for."""
    found: list[Curve] = []
    for steps in config.steps:
        found += _training_free_curves(steps, min(config.iterations, steps))
    for file in pcms:
        found += _pcm_curves(file, config.iterations, f":{file.path.stem}" if len(pcms) > 1 else "")
    return found


def _training_free_curves(steps: int, iterations: int) -> Iterator[Curve]:
    cost = steps * iterations
    curve = partial(Curve, solver="ddim", steps=steps)
    for start in STARTS:
        for jacobian in JACOBIANS:
            sampler = SamplerConfig("picard", "ddim", steps, picard=PicardConfig(jacobian, start))
            follow = partial(follow_picard, sampler)
            yield curve(sampler="picard", jacobian=jacobian, start=start, follow=follow, cost=cost)
        newton = partial(
            follow_newton, SamplerConfig("picard", "ddim", steps, picard=PicardConfig(start=start))
        )
        yield curve(sampler="newton", jacobian="newton", start=start, follow=newton, cost=8 * cost)
    for jacobian, start in ACCELERATED:
        sampler = SamplerConfig(
            "picard",
            "ddim",
            steps,
            parallel=ParallelConfig(memory=MEMORY),
            picard=PicardConfig(jacobian, start),
        )
        follow = partial(follow_predictions, Candidate(sampler, 0))
        name = f"picard_memory_{MEMORY}"
        yield curve(sampler=name, jacobian=jacobian, start=start, follow=follow, cost=3 * cost)
    # In sub-intervals of one step it is Picard iteration with drift.
    length = next((length for length in range(2, steps) if steps % length == 0), None)
    if length is not None:
        sampler = SamplerConfig("parasolver", "ddim", steps, parasolver=ParaSolverConfig(steps // length))
        follow = partial(follow_predictions, Candidate(sampler, 0))
        yield curve(sampler="parasolver", jacobian="drift", start="held", follow=follow, cost=3 * cost)


def _pcm_curves(file: PCMFile, iterations: int, suffix: str) -> Iterator[Curve]:
    """A PCM in each space at each stiffness, and the sampler that it is used in, without it."""
    pcm = file.pcm
    cost = pcm.steps * min(iterations, pcm.steps) ** 2 / 2
    curve = partial(
        Curve, solver=pcm.solver, jacobian=pcm.jacobian, start=pcm.start, steps=pcm.steps, cost=cost
    )
    yield curve(sampler=UNTRAINED + suffix, follow=partial(follow_predictions, Candidate(pcm.picard, 0)))
    for space in ("feature", "parameter") if pcm.weights == "lora" else ("feature",):
        for s in STIFFNESS:
            sampler = replace(pcm.picard, method="pcm", pcm=PcmConfig(space, s))
            schedule = switching_schedule(s, pcm.iterations, iterations=iterations)
            yield curve(
                sampler=f"pcm_{space}{suffix}",
                follow=partial(follow_predictions, Candidate(sampler, 0, file)),
                stiffness=s,
                # A stiffness that weighs the PCM as another one does is the same sampler.
                decisive={"pcm": file.sha256, "weights": [*schedule.changing, schedule.last]},
            )


def follow_picard(sampler: SamplerConfig, setting: Setting) -> Iterator[Point]:
    """Picard iteration, at once: the trajectory of one more iteration is that of the last one, iterated."""
    for iterations, (depth, errors) in enumerate(state_errors(sampler, setting)):
        yield Point(iterations, depth, *percentiles(errors[:, -1], 50, 95))


def follow_newton(sampler: SamplerConfig, setting: Setting) -> Iterator[Point]:
    """Newton's method, whose iterations take as many network evaluations as there are states to change."""
    for iterations, (depth, errors) in enumerate(state_errors(sampler, setting, newton=True)):
        point = Point(iterations, depth, *percentiles(errors[:, -1], 50, 95))
        yield point
        if point.error_p95 < ROUNDING:
            break


def follow_predictions(candidate: Candidate, setting: Setting) -> Iterator[Point]:
    """The policy's own predictions, anew for every number of iterations until they are exact."""
    sampler = candidate.sampler
    measure = accuracy_measure(
        setting.policy, setting.observations, seed=setting.seed, reference_steps=sampler.steps
    )
    for iterations in range(1, min(setting.iterations, sampler.steps) + 1):
        row = measure(replace(candidate, sampler=replace(sampler, stop=StopConfig(iterations))))
        yield Point(iterations, row["depth"], row["error_p50"], row["error_p95"])
        if row["depth"] >= sampler.steps or row["error_p95"] < ROUNDING:
            break


@torch.no_grad()
def state_errors(
    sampler: SamplerConfig, setting: Setting, *, file: PCMFile | None = None, newton: bool = False
) -> Iterator[tuple[int, Tensor]]:
    """Depth, and largest error of each state (B, T+1), of the start and after each iteration.

    Args:
        sampler: a resolved one of the method picard, or pcm.
        setting: what it is measured with.
        file: the PCM of the method pcm.
        newton: whether the iteration is Newton's in place of Picard's.
    """
    steps, start_name = sampler.steps, sampler.picard.start
    policy = setting.policy.with_sampler(SamplerConfig("sequential", sampler.solver, steps))
    solver, covariance = policy.solver, policy.covariance
    # Sources of the noise and of all further noise, as those of `accuracy_measure`.
    first_noise, further = (torch.Generator().manual_seed(setting.seed + i) for i in (0, 1))
    shape = (len(setting.observations), policy.config.horizon, policy.task.action_dim)
    noise = torch.randn(shape, generator=first_noise).to(solver.a)
    condition = policy.normalizer.normalize_rows(setting.observations.to(solver.a)).flatten(1)
    base = make_denoise(policy.network, solver, condition)
    exact = sample_sequential(base, solver, noise)
    schedule = SwitchingSchedule()
    switch = {0.0: base}.__getitem__
    if file is not None:
        pcm, space = file.pcm, sampler.pcm.space
        schedule = switching_schedule(sampler.pcm.stiffness, pcm.iterations, start=pcm.start_weight)
        switch = bind_switch(
            policy.network,
            pcm,
            merged_networks(pcm, schedule, space),
            space=space,
            bind=partial(make_denoise, solver=solver, condition=condition),
        )
    start = make_start(start_name, solver, covariance=covariance)
    states = start(
        switch(schedule.start), noise, lambda shape: torch.randn(shape, generator=further).to(noise)
    )
    depth = exact_states(start_name)
    first = depth if schedule.start == schedule.last else 0
    if newton:
        iterates = newton_iterates(base, solver, states, first=first)
    else:
        iterates = picard_iterates(
            [switch(weight) for weight in schedule.iterations],
            solver,
            states,
            recurrences=[make_recurrence(sampler.picard.jacobian, solver, covariance)],
            first=first,
        )

    def errors(states: Tensor) -> Tensor:
        # The sequential answer is a clipped prediction; an iterate on the way to it need not be in its range.
        clipped = torch.cat((states[:, :-1], states[:, -1:].clamp(-1, 1)), 1)
        return (clipped - exact).abs().amax((2, 3)).double().cpu()

    yield depth, errors(states)
    for iterate in islice(iterates, setting.iterations):
        depth += steps - iterate.first + 1 if newton else 1
        yield depth, errors(iterate.states)
