"""From a sampler's configuration to a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from policy.denoiser import Denoise
from policy.sampling.config import SamplerConfig
from policy.sampling.initial import fresh_noise, gaussian_trajectory, repeated_noise
from policy.sampling.picard import sample_picard
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sequential import sample_sequential
from policy.solver import Solver, ddim_solver, ddpm_solver

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


Sampler: TypeAlias = Callable[[Denoise, Tensor, Draw], Sample]
"""(denoise, noise x₀ (B, H, A), source of further noise) → action sequences."""


def make_solver(config: SamplerConfig, alphas_cumprod: Tensor) -> Solver:
    """The solver that the sampler follows.

    Raises:
        ValueError: if it has more steps than there are training timesteps.
    """
    build = ddpm_solver if config.name == "ddpm" else ddim_solver
    return build(alphas_cumprod, config.steps)


def make_sampler(config: SamplerConfig, solver: Solver, covariance: Tensor | None = None) -> Sampler:
    """Prepare everything that does not depend on the observation.

    Args:
        config: which sampler.
        solver: its solver, on the device and in the precision to sample in.
        covariance: (D, D) of the policy's flattened action sequences given the observation, normalised.

    Raises:
        ValueError: if the sampler needs a covariance and there is none.
    """
    if config.name != "picard":

        def sequential(denoise: Denoise, x0: Tensor, draw: Draw) -> Sample:
            step_noise = None if solver.N is None else draw((len(x0), solver.steps, *x0.shape[1:]))
            actions = sample_sequential(denoise, solver, x0, step_noise)[:, -1]
            return Sample(actions, solver.steps, x0.new_zeros(len(x0)))

        return sequential

    recurrence = make_recurrence(config.formulation, solver, covariance)
    if config.initialisation == "gaussian" and covariance is None:
        raise ValueError("initialisation 'gaussian' needs the covariance of the policy's actions")

    def picard(denoise: Denoise, x0: Tensor, draw: Draw) -> Sample:
        first = 0
        if config.initialisation == "gaussian":
            assert covariance is not None
            states, first = gaussian_trajectory(denoise, solver, x0, covariance), 1
        elif config.initialisation == "repeated":
            states = repeated_noise(x0, solver.steps)
        else:
            states = fresh_noise(x0, draw((len(x0), solver.steps, *x0.shape[1:])))
        window = config.window or None
        result = sample_picard(
            denoise, solver, states, recurrence, config.iterations, config.tolerance, window, first
        )
        # What the initial trajectory made exact it paid for with as many network evaluations.
        return Sample(result.states[:, -1], first + result.iterations, result.residual)

    return picard
