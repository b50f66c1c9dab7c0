from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMParallelScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import PolicyConfig
from policy.denoiser import Denoise, make_denoise
from policy.sampling import SamplerConfig, picard_step, sample_picard, sample_sequential
from policy.sampling.config import PARALLEL_SOLVERS
from policy.sampling.parasolver import sub_interval_solver
from policy.sampling.picard import prediction_before
from policy.sampling.recurrence import FORMULATIONS, make_recurrence
from policy.sampling.sampler import make_sampler, make_solver
from policy.sampling.start import (
    INITIALISATIONS,
    fresh_noise,
    parasolver_trajectory,
    repeated_noise,
)
from policy.solvers.schedule import squared_cosine_alphas_cumprod
from policy.solvers.solver import Solver, ddim_solver, ddpm_solver, dpm_solver

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
TINY = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)
SHAPE = (TINY.horizon, TINY.action_dim)
SIZE = TINY.horizon * TINY.action_dim
MakeDenoise = Callable[[Solver, int, int], Denoise]
Build = Callable[[Tensor, int], Solver]
every_solver = pytest.mark.parametrize("build", [ddim_solver, dpm_solver])
fixtures_do_not_change = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)


def float64_noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


@fixtures_do_not_change
@given(
    steps=st.integers(1, 25),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    formulation=st.sampled_from(FORMULATIONS),
    initialisation=st.sampled_from(INITIALISATIONS),
    window=st.integers(0, 25),
    memory=st.integers(0, 4),
    calls=st.integers(1, 30),
    tolerance=st.sampled_from([0.0, 1e-12]),
    solver_name=st.sampled_from(PARALLEL_SOLVERS),
)
def test_as_many_iterations_as_steps_give_the_sequential_answer(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    steps: int,
    batch: int,
    seed: int,
    formulation: str,
    initialisation: str,
    window: int,
    memory: int,
    calls: int,
    tolerance: float,
    solver_name: str,
) -> None:
    config = SamplerConfig(
        "picard",
        steps,
        iterations=steps,
        tolerance=tolerance,
        solver=solver_name,
        formulation=formulation,
        initialisation=initialisation,
        preconditioning=calls if solver_name == "ddim" else 1,
        window=0 if memory else window,
        memory=memory,
    )
    # In double precision: with random weights rounding of single precision can grow beyond 1e-5, rarely.
    solver = make_solver(config, ALPHAS_CUMPROD)
    denoise = network_denoise(solver, batch, seed)
    sampler = make_sampler(config, solver, random_covariance(SIZE, seed))
    x0 = float64_noise((batch, *SHAPE))
    sequential_solver = make_solver(SamplerConfig(solver_name, steps), ALPHAS_CUMPROD)
    expected = sample_sequential(denoise, sequential_solver, x0)[:, -1]
    actions = sampler(lambda _: denoise, x0, float64_noise).actions
    torch.testing.assert_close(actions, expected, atol=1e-9, rtol=0)


@every_solver
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_each_iteration_makes_one_more_state_exact(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    formulation: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 12)
    denoise = network_denoise(solver, 2, seed=0)
    recurrence = make_recurrence(formulation, solver, random_covariance(SIZE, 0))
    x0 = torch.randn(2, *SHAPE, dtype=torch.float64)
    exact = sample_sequential(denoise, solver, x0)
    for k in range(1, 13):
        result = sample_picard(denoise, solver, repeated_noise(x0, 12), recurrence, k)
        assert result.iterations == k
        torch.testing.assert_close(result.states[:, : k + 1], exact[:, : k + 1], atol=1e-10, rtol=0)
        # The next one is not exact yet, or the test could not fail; later it has all but converged.
        assert k > 3 or (result.states[:, k + 1] - exact[:, k + 1]).abs().max() > 1e-6


@every_solver
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_a_step_goes_on_from_states_that_are_exact(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    formulation: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 8)
    denoise = network_denoise(solver, 2, seed=1)
    recurrence = make_recurrence(formulation, solver, random_covariance(SIZE, 1))
    exact = sample_sequential(denoise, solver, float64_noise((2, *SHAPE)))
    for first in range(8):
        states = torch.cat((exact[:, : first + 1], float64_noise((2, 8 - first, *SHAPE))), 1)
        stepped = picard_step(denoise, solver, recurrence, states, first)
        torch.testing.assert_close(stepped[:, 0], exact[:, first + 1], atol=1e-9, rtol=0)
        found = sample_picard(denoise, solver, states.clone(), recurrence, 3, first=first).states
        # Sampling remembers the prediction that a step must find again.
        for done in range(first, min(first + 3, 8)):
            states = torch.cat(
                (states[:, : done + 1], picard_step(denoise, solver, recurrence, states, done)), 1
            )
        torch.testing.assert_close(found, states, atol=1e-9, rtol=0)


def test_the_prediction_before_a_state_is_found_again(network_denoise: MakeDenoise) -> None:
    solver = dpm_solver(ALPHAS_CUMPROD, 8)
    denoise = network_denoise(solver, 2, seed=2)
    exact = sample_sequential(denoise, solver, float64_noise((2, *SHAPE)))
    predictions = denoise(exact[:, :-1], slice(0, 8))
    for first in range(1, 9):
        before = prediction_before(solver, exact[:, : first + 1], first)
        torch.testing.assert_close(before, predictions[:, first - 1 : first], atol=1e-9, rtol=0)
    assert prediction_before(ddim_solver(ALPHAS_CUMPROD, 8), exact, 3) is None


@pytest.mark.parametrize("k", range(1, 11))
def test_drift_equals_a_loop_over_diffusers_parallel_scheduler(network_denoise: MakeDenoise, k: int) -> None:
    """Eq. 10 of the PCM paper, x_t ← x_0 + Σ_{i<t} (F_i(x_i) − x_i), with diffusers' batched F."""
    steps = 10
    scheduler = DDIMParallelScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
    )
    scheduler.set_timesteps(steps)
    # In double precision, since ε is recomputed from x̂ below and divided by small √ᾱ.
    scheduler.alphas_cumprod = ALPHAS_CUMPROD
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    solver = ddim_solver(ALPHAS_CUMPROD, steps)
    denoise = network_denoise(solver, 1, seed=3)
    x0 = torch.randn(1, *SHAPE, dtype=torch.float64)
    initial = fresh_noise(x0, torch.randn(1, steps, *SHAPE, dtype=torch.float64))

    alpha = ALPHAS_CUMPROD[scheduler.timesteps][:, None, None]
    states = initial[0].clone()
    for _ in range(k):
        prediction = denoise(states[None, :-1], slice(0, steps))[0]
        epsilon = (states[:-1] - alpha.sqrt() * prediction) / (1 - alpha).sqrt()
        stepped = scheduler.batch_step_no_noise(epsilon, scheduler.timesteps, states[:-1])
        states[1:] = x0[0] + (stepped - states[:-1]).cumsum(0)

    recurrence = make_recurrence("drift", solver)
    result = sample_picard(denoise, solver, initial.clone(), recurrence, k)
    torch.testing.assert_close(result.states[0], states, atol=1e-8, rtol=0)


@every_solver
@pytest.mark.parametrize("k", [1, 2, 4])
def test_semilinear_equals_the_solvers_affine_map(network_denoise: MakeDenoise, k: int, build: Build) -> None:
    """x_t ← a_t·x_0 + Σ_{i<t} C_{t,i}·x̂_i(x_i): the same iteration without steps or a recurrence."""
    solver = build(ALPHAS_CUMPROD, 10)
    denoise = network_denoise(solver, 2, seed=4)
    x0 = torch.randn(2, *SHAPE, dtype=torch.float64)
    states = repeated_noise(x0, 10)
    for _ in range(k):
        predictions = denoise(states[:, :-1], slice(0, 10))
        states = solver.a[:, None, None] * x0[:, None] + torch.einsum("ti,biha->btha", solver.C, predictions)
    result = sample_picard(denoise, solver, repeated_noise(x0, 10), make_recurrence("semilinear", solver), k)
    torch.testing.assert_close(result.states, states, atol=1e-10, rtol=0)


@fixtures_do_not_change
@given(steps=st.integers(1, 100), seed=st.integers(0, 1000), build=st.sampled_from([ddim_solver, dpm_solver]))
def test_preconditioned_converges_at_once_for_a_gaussian(
    random_covariance: Callable[[int, int], Tensor],
    gaussian_denoise: Callable[[Solver, Tensor, Tensor], Denoise],
    steps: int,
    seed: int,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    covariance = random_covariance(6, seed)
    denoise = gaussian_denoise(solver, torch.randn(3, 2, dtype=torch.float64), covariance)
    x0 = torch.randn(2, 3, 2, dtype=torch.float64)
    expected = sample_sequential(denoise, solver, x0)
    initial = fresh_noise(x0, torch.randn(2, steps, 3, 2, dtype=torch.float64))
    result = sample_picard(
        denoise, solver, initial, make_recurrence("preconditioned", solver, covariance), iterations=1
    )
    torch.testing.assert_close(result.states, expected, atol=1e-8, rtol=0)


@every_solver
@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_tolerance_stops_early_and_close(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    formulation: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 25)
    denoise = network_denoise(solver, 2, seed=5)
    recurrence = make_recurrence(formulation, solver, random_covariance(SIZE, 2))
    x0 = torch.randn(2, *SHAPE, dtype=torch.float64)
    exact = sample_sequential(denoise, solver, x0)[:, -1]
    loose, tight = (
        sample_picard(denoise, solver, repeated_noise(x0, 25), recurrence, 25, tolerance)
        for tolerance in (0.1, 1e-4)
    )
    assert loose.iterations <= tight.iterations
    if formulation != "jacobi":  # which moves one state further per iteration, whatever the tolerance
        assert tight.iterations < 25
    assert (tight.states[:, -1] - exact).abs().max() < 1e-3


def test_frozen_states_are_not_evaluated_again(network_denoise: MakeDenoise) -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, 6)
    denoise = network_denoise(solver, 1, seed=0)
    evaluated: list[list[int]] = []

    def counting(states: Tensor, steps: slice) -> Tensor:
        evaluated.append(list(range(6))[steps])
        assert states.shape[1] == len(evaluated[-1])
        return denoise(states, steps)

    x0 = torch.randn(1, *SHAPE, dtype=torch.float64)
    recurrence = make_recurrence("drift", solver)
    sample_picard(counting, solver, repeated_noise(x0, 6), recurrence, 3)
    assert evaluated == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 4, 5]]
    evaluated.clear()
    sample_picard(counting, solver, repeated_noise(x0, 6), recurrence, 100, window=2)
    assert evaluated == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5]]


def test_float32_agrees_with_float64(random_covariance: Callable[[int, int], Tensor]) -> None:
    exact_solver = ddim_solver(ALPHAS_CUMPROD, 16)
    covariance = random_covariance(SIZE, 3)
    x0 = torch.randn(2, *SHAPE, dtype=torch.float64)
    config = SamplerConfig(
        "picard", 16, iterations=4, formulation="preconditioned", initialisation="gaussian"
    )
    answers = []
    for solver, x in ((exact_solver, x0), (exact_solver.to("cpu", torch.float32), x0.float())):
        torch.manual_seed(0)
        network = TINY.build_network().requires_grad_(False).to(x.dtype)
        condition = torch.ones(2, TINY.cond_dim, dtype=x.dtype)
        sampler = make_sampler(config, solver, covariance.to(x.dtype))
        denoise = make_denoise(network, solver, condition)
        answers.append(sampler(lambda _, denoise=denoise: denoise, x, torch.randn).actions.double())
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=0)


def test_wrong_use_is_refused() -> None:
    solver = ddim_solver(ALPHAS_CUMPROD, 4)
    with pytest.raises(ValueError, match="'preconditioned' needs the covariance"):
        make_sampler(SamplerConfig("picard", 4), solver)
    with pytest.raises(ValueError, match="'gaussian' needs the covariance"):
        make_sampler(SamplerConfig("picard", 4, formulation="drift", initialisation="gaussian"), solver)
    with pytest.raises(ValueError, match="unknown formulation 'secant', must be one of jacobi, drift"):
        make_recurrence("secant", solver)
    stochastic = ddpm_solver(ALPHAS_CUMPROD, 4)
    with pytest.raises(ValueError, match="needs a deterministic solver"):
        sample_picard(
            lambda s, i: s, stochastic, torch.zeros(1, 5, 2, 2), make_recurrence("drift", solver), 1
        )


def test_what_needs_single_steps_refuses_another_solver() -> None:
    with pytest.raises(ValueError, match=r"sampler\.preconditioning 2 needs sampler\.solver ddim"):
        SamplerConfig("picard", 4, solver="dpm_solver", preconditioning=2)
    # It may stand beside what takes no notice of it.
    for name in ("ddim", "parasolver"):
        assert make_solver(SamplerConfig(name, 4, solver="dpm_solver"), ALPHAS_CUMPROD).b is None
    solver, x0 = dpm_solver(ALPHAS_CUMPROD, 4), float64_noise((1, *SHAPE))
    with pytest.raises(ValueError, match="'parasolver' has one call only: a multistep solver"):
        parasolver_trajectory(lambda states, steps: states, solver, x0, 2)
    with pytest.raises(ValueError, match=r"ParaSolver needs sub-intervals .* a multistep solver"):
        sub_interval_solver(solver, 2)
    with pytest.raises(ValueError, match="can only be held from the noise on: a multistep solver"):
        make_sampler(SamplerConfig("parasolver", 4), solver)(lambda _: lambda x, i: x, x0, float64_noise)
