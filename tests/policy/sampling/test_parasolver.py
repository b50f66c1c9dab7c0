from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import ParallelConfig, ParaSolverConfig, SamplerConfig, StopConfig
from policy.denoiser import Denoise
from policy.sampling import sample_sequential
from policy.sampling.methods import make_sampler
from policy.sampling.parasolver import sub_interval_denoise, sub_interval_solver
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sampler import Ingredients
from policy.sampling.start import held_prediction
from policy.solvers import Solver, ddim
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
MakeDenoise = Callable[[Solver, int, int], Denoise]


def noise(batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, 16, 2), generator=generator, dtype=torch.float64)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    sub_intervals=st.integers(1, 6),
    length=st.integers(1, 4),
    batch=st.integers(1, 2),
    seed=st.integers(0, 1000),
    calls=st.integers(1, 30),
    window=st.integers(0, 7),
    memory=st.integers(0, 3),
)
def test_as_many_iterations_as_sub_intervals_give_the_sequential_answer(
    network_denoise: MakeDenoise,
    sub_intervals: int,
    length: int,
    batch: int,
    seed: int,
    calls: int,
    window: int,
    memory: int,
) -> None:
    solver = ddim(ALPHAS_CUMPROD, sub_intervals * length)
    denoise = network_denoise(solver, batch, seed)
    config = SamplerConfig(
        "parasolver",
        "ddim",
        sub_intervals * length,
        stop=StopConfig(sub_intervals),
        parallel=ParallelConfig(window=0 if memory else window, memory=memory),
        parasolver=ParaSolverConfig(sub_intervals, start_calls=calls),
    )
    drawn = noise(batch, seed)
    sample = make_sampler(config.resolved(), Ingredients(solver))(lambda _: denoise, drawn, torch.randn)
    expected = sample_sequential(denoise, solver, drawn)[:, -1]
    torch.testing.assert_close(sample.actions, expected, atol=1e-9, rtol=0)


def parasolver_loop(
    denoise: Denoise,
    solver: Solver,
    drawn: Tensor,
    *,
    intervals: int,
    calls: int,
    window: int,
    iterations: int,
) -> Tensor:
    """The actions, by the authors' published loop: fine steps in each sub-interval, a running sum over all of them."""
    length = solver.steps // intervals
    alpha = solver.alphas_cumprod

    def ddim(x: Tensor, prediction: Tensor, i: int, j: int) -> Tensor:
        """From the fine state i to j."""
        epsilon = (x - alpha[i].sqrt() * prediction) / (1 - alpha[i]).sqrt()
        return alpha[j].sqrt() * prediction + (1 - alpha[j]).sqrt() * epsilon

    def predict(x: Tensor, i: int) -> Tensor:
        return denoise(x[:, None], slice(i, i + 1))[:, 0]

    states = [drawn]
    for n in range(intervals):
        if n < calls:
            prediction = predict(states[n], n * length)
        states.append(ddim(states[n], prediction, n * length, (n + 1) * length))
    end = min(window, intervals)
    # Without a tolerance each iteration makes one sub-interval more exact.
    for begin in range(min(iterations, intervals)):
        deltas = []
        for n in range(begin, end):
            x = states[n]
            for i in range(n * length, (n + 1) * length):
                prediction = predict(x, i)
                x = ddim(x, prediction, i, i + 1)
            deltas.append(x - states[n])
        for n in range(begin, end):
            states[n + 1] = states[begin] + sum(deltas[: n + 1 - begin])
        reached = min(intervals, begin + 1 + window)
        for n in range(end, reached):
            states[n + 1] = ddim(states[n], prediction, n * length, (n + 1) * length)
        end = reached
    return states[-1]


@pytest.mark.parametrize(
    ("intervals", "calls", "window", "iterations"),
    [(12, 3, 12, 2), (12, 1, 12, 5), (4, 2, 4, 1), (4, 2, 4, 3), (12, 3, 5, 9), (4, 1, 2, 3), (6, 2, 3, 6)],
)
def test_every_iterate_is_the_published_loops(
    network_denoise: MakeDenoise, intervals: int, calls: int, window: int, iterations: int
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 12)
    denoise = network_denoise(solver, 2, 1)
    config = SamplerConfig(
        "parasolver",
        "ddim",
        12,
        stop=StopConfig(iterations),
        parallel=ParallelConfig(window=0 if window == intervals else window),
        parasolver=ParaSolverConfig(intervals, start_calls=calls),
    )
    drawn = noise(2)
    sample = make_sampler(config.resolved(), Ingredients(solver))(lambda _: denoise, drawn, torch.randn)
    expected = parasolver_loop(
        denoise, solver, drawn, intervals=intervals, calls=calls, window=window, iterations=iterations
    )
    torch.testing.assert_close(sample.actions, expected.clamp(-1, 1), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("sub_intervals", "calls", "iterations", "depth"),
    [(0, 3, 2, 5), (12, 3, 2, 5), (4, 1, 2, 7), (4, 9, 2, 10), (0, 12, 5, 12), (4, 2, 1000, 14)],
)
def test_depth_counts_exact_states_and_the_steps_inside_sub_intervals(
    network_denoise: MakeDenoise, sub_intervals: int, calls: int, iterations: int, depth: int
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 12)
    denoise = network_denoise(solver, 1, 1)
    made: list[slice] = []

    def counted(states: Tensor, steps: slice) -> Tensor:
        made.append(steps)
        return denoise(states, steps)

    config = SamplerConfig(
        "parasolver",
        "ddim",
        12,
        stop=StopConfig(iterations),
        parasolver=ParaSolverConfig(sub_intervals, start_calls=calls),
    )
    sample = make_sampler(config.resolved(), Ingredients(solver))(lambda _: counted, noise(1), torch.randn)
    assert sample.depth == depth == len(made)


def test_a_sub_interval_is_one_step_of_its_own_solver(network_denoise: MakeDenoise) -> None:
    """Sequential sampling in sub-intervals is sequential sampling."""
    solver = ddim(ALPHAS_CUMPROD, 12)
    denoise = network_denoise(solver, 2, 4)
    fine = sample_sequential(denoise, solver, noise(2))
    coarse = sample_sequential(
        sub_interval_denoise(denoise, solver, 4), sub_interval_solver(solver, 4), noise(2)
    )
    torch.testing.assert_close(coarse, fine[:, ::3], atol=1e-10, rtol=0)


def test_with_a_sub_interval_a_step_it_is_picard_with_another_start(
    network_denoise: MakeDenoise, iterated: Callable[..., list[Tensor]]
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 10)
    denoise = network_denoise(solver, 2, 5)
    initial = held_prediction(denoise, solver, noise(2), calls=2)
    exact = sample_sequential(denoise, solver, noise(2))
    torch.testing.assert_close(initial[:, :3], exact[:, :3], atol=1e-12, rtol=0)
    recurrence = make_recurrence("drift", solver)
    picard = iterated(denoise, solver, initial, recurrence=recurrence, iterations=3, first=2)[-1]
    config = SamplerConfig(
        "parasolver", "ddim", 10, stop=StopConfig(3), parasolver=ParaSolverConfig(start_calls=2)
    )
    sample = make_sampler(config.resolved(), Ingredients(solver))(lambda _: denoise, noise(2), torch.randn)
    torch.testing.assert_close(sample.actions, picard[:, -1].clamp(-1, 1), atol=1e-12, rtol=0)


def test_sub_intervals_of_different_lengths_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"sampler\.parasolver\.sub_intervals must divide sampler\.steps 10, got 3"
    ):
        SamplerConfig("parasolver", "ddim", 10, parasolver=ParaSolverConfig(3))
    with pytest.raises(ValueError, match="3 sub-intervals do not divide 10 solver steps"):
        sub_interval_solver(ddim(ALPHAS_CUMPROD, 10), 3)
