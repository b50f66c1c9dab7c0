"""The methods: from a sampler's options and ingredients to the sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TypeAlias

from torch import Tensor

from policy.sampling.anderson import anderson
from policy.sampling.config import SamplerConfig
from policy.sampling.deadline import Deadline, IterationTimes, device_clock
from policy.sampling.parasolver import first_states_denoise, sub_interval_denoise, sub_interval_solver
from policy.sampling.partial import last_steps, partial_state
from policy.sampling.picard import picard_iterates, within_tolerance
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sampler import Ingredients, Sample, Sampler
from policy.sampling.sequential import sample_sequential
from policy.sampling.start import Draw, exact_states, make_start, states_of_guess
from policy.sampling.switching import Switch
from policy.sampling.warm_start import first_recurrence

Method: TypeAlias = Callable[[SamplerConfig, Ingredients], Sampler]
"""(resolved options, ingredients) → sampler. Raises ValueError if the method cannot work with them."""


def sequential(config: SamplerConfig, ingredients: Ingredients) -> Sampler:
    """Forward substitution: the network evaluations are sequential. With a guess, only the last steps are taken."""
    whole, tail, noises = ingredients.solver, ingredients.last_steps, config.partial.noise

    def sample(
        switch: Switch, noise: Tensor, draw: Draw, *, guess: Tensor | None = None, called: float | None = None
    ) -> Sample:
        solver, begin, denoise = whole, noise, switch(0.0)
        if guess is not None and tail is not None:
            solver, begin = tail, partial_state(tail, guess, None if noises == "none" else noise)
            denoise = last_steps(denoise, whole.steps - tail.steps)
        step_noise = None if solver.N is None else draw((noise.shape[0], solver.steps, *noise.shape[1:]))
        states = sample_sequential(denoise, solver, begin, step_noise=step_noise)
        return Sample(states[:, -1], solver.steps, noise.new_zeros(noise.shape[0]))

    return sample


def picard(config: SamplerConfig, ingredients: Ingredients) -> Sampler:
    """Picard iteration over the solver's steps; with a PCM in the first iterations, if there is one."""
    return _parallel(
        config,
        ingredients,
        jacobian=config.picard.jacobian,
        start=config.picard.start,
        start_calls=config.picard.start_calls,
    )


def parasolver(config: SamplerConfig, ingredients: Ingredients) -> Sampler:
    """ParaSolver: Picard iteration over sub-intervals of the solver's steps."""
    return _parallel(
        config,
        ingredients,
        jacobian="drift",
        start="held",
        start_calls=config.parasolver.start_calls,
        sub_intervals=config.parasolver.sub_intervals or config.steps,
        refill=True,
    )


METHODS: Mapping[str, Method] = {
    "sequential": sequential,
    "picard": picard,
    "parasolver": parasolver,
    "pcm": picard,
}


def make_sampler(config: SamplerConfig, ingredients: Ingredients) -> Sampler:
    """Prepare the sampler of a configuration.

    Args:
        config: resolved, see `SamplerConfig.resolved`.
        ingredients: everything else that its method needs.

    Raises:
        ValueError: if the method cannot work with these options and ingredients.
    """
    return METHODS[config.method](config, ingredients)


def _parallel(
    config: SamplerConfig,
    ingredients: Ingredients,
    *,
    jacobian: str,
    start: str,
    start_calls: int,
    sub_intervals: int | None = None,
    refill: bool = False,
) -> Sampler:
    """Consume Picard iterates until an option says stop."""
    fine, covariance, switching = ingredients.solver, ingredients.covariance, ingredients.switching
    fine.require_deterministic(f"the method {config.method}")
    solver = fine if sub_intervals is None else sub_interval_solver(fine, sub_intervals)
    length = fine.steps // solver.steps  # depth of an iteration
    recurrence = make_recurrence(jacobian, solver, covariance)
    warm_recurrences = [recurrence]
    if config.starts_warm:
        warm_recurrences.insert(0, first_recurrence(jacobian, solver, covariance))
    start_depth = min(exact_states(start, start_calls), solver.steps)
    initial_states = make_start(start, solver, covariance=covariance, calls=start_depth)
    # States by another model, or by a longer step, are not exact.
    exact = start_depth if switching.start == switching.last and length == 1 else 0
    converged = within_tolerance(config.stop.tolerance, solver) if config.stop.tolerance > 0 else None
    times = IterationTimes()

    def sample(
        switch: Switch, noise: Tensor, draw: Draw, *, guess: Tensor | None = None, called: float | None = None
    ) -> Sample:
        now = device_clock(ingredients.clock, noise.device)
        deadline = None
        if config.stop.deadline_ms > 0:
            began = now() if called is None else called
            deadline = Deadline(began + config.stop.deadline_ms / 1000, now, times)
        if guess is None:
            denoise = switch(switching.start)
            states = initial_states(
                denoise if length == 1 else first_states_denoise(denoise, length), noise, draw
            )
            weights, recurrences, depth, first = switching.iterations, [recurrence], start_depth, exact
            most = config.stop.iterations
        else:
            states = states_of_guess(solver, noise, guess)
            weights, recurrences, depth, first = switching.warm_iterations, warm_recurrences, 0, 0
            most = config.stop.warm_iterations or config.stop.iterations
        denoisers = [switch(weight) for weight in weights]
        if length > 1:
            denoisers = [sub_interval_denoise(denoise, fine, solver.steps) for denoise in denoisers]
        iterates = picard_iterates(
            denoisers,
            solver,
            states,
            recurrences=recurrences,
            first=first,
            window=config.parallel.window or None,
            converged=converged,
            accelerate=anderson(config.parallel.memory) if config.parallel.memory else None,
            refill=refill,
        )
        if deadline is not None:
            iterates = deadline.in_time(iterates, first=first)
        change = noise.new_zeros(noise.shape[0])
        for iterate in islice(iterates, most or None):
            states, change = iterate.states, iterate.changes[:, -1]
            depth += length
        # The sequential answer is a clipped prediction. Iterates on the way to it can leave that range.
        actions = states[:, -1].clamp(-1, 1)
        return Sample(actions, depth, change.sqrt(), deadline is not None and deadline.has_cut)

    return sample
