"""From a sampler's configuration to a function."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from policy.sampling.config import SamplerConfig
from policy.sampling.deadline import Clock, Deadline, IterationTimes, device_clock
from policy.sampling.parasolver import first_states_denoise, sub_interval_denoise, sub_interval_solver
from policy.sampling.picard import sample_picard
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sequential import sample_sequential
from policy.sampling.start import Draw, initial_calls, make_start
from policy.sampling.switching import Switch, switching_weights
from policy.sampling.warm_start import COVARIANCE_LEFT, warm_trajectory
from policy.solvers.solver import Solver, ddim_solver, ddpm_solver, dpm_solver


@dataclass(frozen=True)
class Sample:
    """Action sequences and what they took.

    Attributes:
        actions: (B, H, A), normalised.
        depth: network evaluations, one after the other.
        residual: (B,) root mean square of how far the last iteration moved the actions, with a window the last state in
            it; 0 for a sequential sampler.
        cut: whether a deadline ended it before the sampler would have.
    """

    actions: Tensor
    depth: int
    residual: Tensor
    cut: bool = False


class Sampler(Protocol):
    """Noise → action sequences."""

    def __call__(
        self,
        switch: Switch,
        x0: Tensor,
        draw: Draw,
        guess: Tensor | None = None,
        called: float | None = None,
    ) -> Sample:
        """Sample.

        Args:
            switch: weight of a PCM → denoise.
            x0: (B, H, A) noise.
            draw: source of further noise.
            guess: (B, H, A) normalised actions that a parallel sampler starts from, in place of its initial trajectory.
            called: time by the sampler's clock from which its deadline counts, by default now.
        """
        ...


def make_solver(config: SamplerConfig, alphas_cumprod: Tensor) -> Solver:
    """The solver that the sampler follows.

    Raises:
        ValueError: if it has more steps than there are training timesteps.
    """
    build = {"ddim": ddim_solver, "ddpm": ddpm_solver, "dpm_solver": dpm_solver}[config.solver_name]
    return build(alphas_cumprod, config.steps)


def make_sampler(
    config: SamplerConfig,
    solver: Solver,
    covariance: Tensor | None = None,
    trained_iterations: int = 1,
    initial_weight: float = 0.0,
    clock: Clock = time.perf_counter,
) -> Sampler:
    """Prepare everything that does not depend on the observation.

    Args:
        config: which sampler.
        solver: its solver, on the device and in the precision to sample in.
        covariance: (D, D) of the policy's flattened action sequences given the observation, normalised.
        trained_iterations: K of the PCM, if the sampler uses one.
        initial_weight: of the PCM in the network calls of the initial trajectory.
        clock: that deadlines are judged by. The sampler remembers its iterations' times for the next call.

    Raises:
        ValueError: if the sampler needs a covariance and there is none, or a solver of single steps.
    """
    if not config.is_parallel:

        def sequential(
            switch: Switch, x0: Tensor, draw: Draw, guess: Tensor | None = None, called: float | None = None
        ) -> Sample:
            step_noise = None if solver.N is None else draw((len(x0), solver.steps, *x0.shape[1:]))
            actions = sample_sequential(switch(0.0), solver, x0, step_noise)[:, -1]
            return Sample(actions, solver.steps, x0.new_zeros(len(x0)))

        return sequential

    parasolver = config.name == "parasolver"
    formulation = "drift" if parasolver else config.formulation
    initialisation = "parasolver" if parasolver else config.initialisation
    sub_intervals = config.sub_intervals if parasolver and config.sub_intervals else solver.steps
    length = solver.steps // sub_intervals
    coarse = solver if length == 1 else sub_interval_solver(solver, sub_intervals)
    recurrence = make_recurrence(formulation, coarse, covariance)
    warm_recurrence = None
    if config.warm_start != "none" and formulation == "preconditioned" and covariance is not None:
        warm_recurrence = make_recurrence(formulation, coarse, COVARIANCE_LEFT * covariance)
    calls = min(initial_calls(initialisation, config.preconditioning), coarse.steps)
    start = make_start(initialisation, coarse, covariance, calls)
    weights: list[float] = []
    last_weight = 0.0
    if config.uses_pcm:
        weights, last_weight = switching_weights(config.stiffness, trained_iterations, config.iterations)
    times = IterationTimes()

    def parallel(
        switch: Switch, x0: Tensor, draw: Draw, guess: Tensor | None = None, called: float | None = None
    ) -> Sample:
        deadline = None
        if config.deadline_ms > 0:
            now = device_clock(clock, x0.device)
            deadline = Deadline((now() if called is None else called) + config.deadline_ms / 1000, now, times)
        denoise, initial_denoise = switch(last_weight), switch(initial_weight)
        if length > 1:
            denoise = sub_interval_denoise(denoise, solver, sub_intervals)
            initial_denoise = first_states_denoise(initial_denoise, length)
        if guess is None:
            states, made = start(initial_denoise, x0, draw), calls
        else:
            states, made = warm_trajectory(coarse, x0, guess), 0
        # What another model made, or a longer step, is not exact.
        first = made if initial_weight == last_weight and length == 1 else 0
        result = sample_picard(
            denoise,
            coarse,
            states,
            recurrence,
            config.iterations,
            config.tolerance,
            config.window or None,
            first,
            [switch(weight) for weight in weights] if guess is None else [],  # a PCM knows cold starts only
            config.memory,
            renew=parasolver,
            deadline=deadline,
            first_recurrence=None if guess is None else warm_recurrence,
        )
        depth = made + length * result.iterations
        # The sequential answer is a clipped prediction; an iterate on the way to it need not be in its range.
        return Sample(result.states[:, -1].clamp(-1, 1), depth, result.residual, result.cut)

    return parallel
