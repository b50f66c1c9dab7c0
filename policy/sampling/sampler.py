"""From a sampler's configuration to a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from policy.sampling.config import SamplerConfig
from policy.sampling.initial import initial_trajectory
from policy.sampling.picard import sample_picard
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sequential import sample_sequential
from policy.sampling.switching import Switch, switching_weights
from policy.solver import Solver, ddim_solver, ddpm_solver, dpm_solver

Draw: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""(B, …) → standard normal noise of that shape."""


@dataclass(frozen=True)
class Sample:
    """Action sequences and what they took.

    Attributes:
        actions: (B, H, A), normalised.
        depth: network evaluations, one after the other.
        residual: (B,) root mean square of how far the last iteration moved the actions; 0 for a sequential sampler.
    """

    actions: Tensor
    depth: int
    residual: Tensor


Sampler: TypeAlias = Callable[[Switch, Tensor, Draw], Sample]
"""(weight of a PCM → denoise, noise x₀ (B, H, A), source of further noise) → action sequences."""


def make_solver(config: SamplerConfig, alphas_cumprod: Tensor) -> Solver:
    """The solver that the sampler follows.

    Raises:
        ValueError: if it has more steps than there are training timesteps.
    """
    build = {"ddpm": ddpm_solver, "dpm_solver": dpm_solver}.get(config.name, ddim_solver)
    return build(alphas_cumprod, config.steps)


def make_sampler(
    config: SamplerConfig,
    solver: Solver,
    covariance: Tensor | None = None,
    trained_iterations: int = 1,
    initial_weight: float = 0.0,
) -> Sampler:
    """Prepare everything that does not depend on the observation.

    Args:
        config: which sampler.
        solver: its solver, on the device and in the precision to sample in.
        covariance: (D, D) of the policy's flattened action sequences given the observation, normalised.
        trained_iterations: K of the PCM, if the sampler uses one.
        initial_weight: of the PCM in the network call of a ``gaussian`` initial trajectory.

    Raises:
        ValueError: if the sampler needs a covariance and there is none.
    """
    if not config.is_parallel:

        def sequential(switch: Switch, x0: Tensor, draw: Draw) -> Sample:
            step_noise = None if solver.N is None else draw((len(x0), solver.steps, *x0.shape[1:]))
            actions = sample_sequential(switch(0.0), solver, x0, step_noise)[:, -1]
            return Sample(actions, solver.steps, x0.new_zeros(len(x0)))

        return sequential

    recurrence = make_recurrence(config.formulation, solver, covariance)
    if config.initialisation == "gaussian" and covariance is None:
        raise ValueError("initialisation 'gaussian' needs the covariance of the policy's actions")
    weights: list[float] = []
    last_weight = 0.0
    if config.uses_pcm:
        weights, last_weight = switching_weights(config.stiffness, trained_iterations, config.iterations)

    def picard(switch: Switch, x0: Tensor, draw: Draw) -> Sample:
        states, initial_calls = initial_trajectory(
            config.initialisation, switch(initial_weight), solver, x0, draw, covariance
        )
        first = initial_calls if initial_weight == last_weight else 0  # what another model made is not exact
        result = sample_picard(
            switch(last_weight),
            solver,
            states,
            recurrence,
            config.iterations,
            config.tolerance,
            config.window or None,
            first,
            [switch(weight) for weight in weights],
        )
        return Sample(result.states[:, -1], initial_calls + result.iterations, result.residual)

    return picard
