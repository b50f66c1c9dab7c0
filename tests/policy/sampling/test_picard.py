from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMParallelScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import ParallelConfig, PicardConfig, PolicyConfig, SamplerConfig, StopConfig
from policy.denoiser import Denoise, make_denoise
from policy.sampling import picard_iterates, picard_step, sample_sequential
from policy.sampling.methods import make_sampler
from policy.sampling.parasolver import sub_interval_solver
from policy.sampling.picard import predictions_behind, within_tolerance
from policy.sampling.recurrence import JACOBIANS, make_recurrence
from policy.sampling.sampler import Ingredients
from policy.sampling.start import STARTS, fresh_noise, make_start, repeated_noise
from policy.solvers import SOLVERS, Solver, ddim, ddpm, dpmpp_2m
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod
from training.data.task_file import load_task

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
PUSHT = load_task("pusht").task
TINY = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)
SHAPE = (TINY.horizon, PUSHT.action_dim)
SIZE = TINY.horizon * PUSHT.action_dim
MakeDenoise = Callable[[Solver, int, int], Denoise]
Iterated = Callable[..., list[Tensor]]
Build = Callable[[Tensor, int], Solver]
every_solver = pytest.mark.parametrize("build", [ddim, dpmpp_2m])
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
    jacobian=st.sampled_from(JACOBIANS),
    start=st.sampled_from(STARTS),
    window=st.integers(0, 25),
    memory=st.integers(0, 4),
    calls=st.integers(1, 30),
    tolerance=st.sampled_from([0.0, 1e-12]),
    solver_name=st.sampled_from(["ddim", "dpmpp_2m"]),
)
def test_as_many_iterations_as_steps_give_the_sequential_answer(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    steps: int,
    batch: int,
    seed: int,
    jacobian: str,
    start: str,
    window: int,
    memory: int,
    calls: int,
    tolerance: float,
    solver_name: str,
) -> None:
    config = SamplerConfig(
        "picard",
        solver_name,
        steps,
        stop=StopConfig(steps, tolerance),
        parallel=ParallelConfig(window=0 if memory else window, memory=memory),
        picard=PicardConfig(jacobian, start, calls if start == "held" else 1),
    )
    # In double precision: with random weights rounding of single precision can grow beyond 1e-5, rarely.
    solver = SOLVERS[solver_name](ALPHAS_CUMPROD, steps)
    denoise = network_denoise(solver, batch, seed)
    sampler = make_sampler(config, Ingredients(solver, random_covariance(SIZE, seed)))
    noise = float64_noise((batch, *SHAPE))
    expected = sample_sequential(denoise, solver, noise)[:, -1]
    actions = sampler(lambda _: denoise, noise, float64_noise).actions
    torch.testing.assert_close(actions, expected, atol=1e-9, rtol=0)


@every_solver
@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_each_iteration_makes_one_more_state_exact(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    iterated: Iterated,
    jacobian: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 12)
    denoise = network_denoise(solver, 2, seed=0)
    recurrence = make_recurrence(jacobian, solver, random_covariance(SIZE, 0))
    noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    exact = sample_sequential(denoise, solver, noise)
    iterates = iterated(denoise, solver, repeated_noise(noise, 12), recurrence=recurrence)
    assert len(iterates) == 12
    for k, states in enumerate(iterates, 1):
        torch.testing.assert_close(states[:, : k + 1], exact[:, : k + 1], atol=1e-10, rtol=0)
        # The next one is not exact yet, or the test could not fail; later it has all but converged.
        assert k > 3 or (states[:, k + 1] - exact[:, k + 1]).abs().max() > 1e-6


@every_solver
@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_a_step_goes_on_from_states_that_are_exact(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    iterated: Iterated,
    jacobian: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 8)
    denoise = network_denoise(solver, 2, seed=1)
    recurrence = make_recurrence(jacobian, solver, random_covariance(SIZE, 1))
    exact = sample_sequential(denoise, solver, float64_noise((2, *SHAPE)))
    for first in range(8):
        states = torch.cat((exact[:, : first + 1], float64_noise((2, 8 - first, *SHAPE))), 1)
        stepped = picard_step(denoise, solver, states, recurrence=recurrence, first=first)
        torch.testing.assert_close(stepped[:, 0], exact[:, first + 1], atol=1e-9, rtol=0)
        found = iterated(denoise, solver, states.clone(), recurrence=recurrence, iterations=3, first=first)[
            -1
        ]
        # Sampling remembers the prediction that a step must find again.
        for done in range(first, min(first + 3, 8)):
            stepped = picard_step(denoise, solver, states, recurrence=recurrence, first=done)
            states = torch.cat((states[:, : done + 1], stepped), 1)
        torch.testing.assert_close(found, states, atol=1e-9, rtol=0)


@every_solver
def test_the_predictions_behind_states_are_found_again(network_denoise: MakeDenoise, build: Build) -> None:
    solver = build(ALPHAS_CUMPROD, 8)
    denoise = network_denoise(solver, 2, seed=2)
    exact = sample_sequential(denoise, solver, float64_noise((2, *SHAPE)))
    predictions = denoise(exact[:, :-1], slice(0, 8))
    for count in range(9):
        behind = predictions_behind(solver, exact, count)
        torch.testing.assert_close(behind, predictions[:, :count], atol=1e-9, rtol=0)


@pytest.mark.parametrize("k", range(1, 11))
def test_drift_equals_a_loop_over_diffusers_parallel_scheduler(
    network_denoise: MakeDenoise, iterated: Iterated, k: int
) -> None:
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
    solver = ddim(ALPHAS_CUMPROD, steps)
    denoise = network_denoise(solver, 1, seed=3)
    noise = torch.randn(1, *SHAPE, dtype=torch.float64)
    initial = fresh_noise(noise, torch.randn(1, steps, *SHAPE, dtype=torch.float64))

    alpha = ALPHAS_CUMPROD[scheduler.timesteps][:, None, None]
    states = initial[0].clone()
    for _ in range(k):
        prediction = denoise(states[None, :-1], slice(0, steps))[0]
        epsilon = (states[:-1] - alpha.sqrt() * prediction) / (1 - alpha).sqrt()
        stepped = scheduler.batch_step_no_noise(epsilon, scheduler.timesteps, states[:-1])
        states[1:] = noise[0] + (stepped - states[:-1]).cumsum(0)

    recurrence = make_recurrence("drift", solver)
    found = iterated(denoise, solver, initial.clone(), recurrence=recurrence, iterations=k)[-1]
    torch.testing.assert_close(found[0], states, atol=1e-8, rtol=0)


@every_solver
@pytest.mark.parametrize("k", [1, 2, 4])
def test_semilinear_equals_the_solvers_affine_map(
    network_denoise: MakeDenoise, iterated: Iterated, k: int, build: Build
) -> None:
    """x_t ← a_t·x_0 + Σ_{i<t} C_{t,i}·x̂_i(x_i): the same iteration without steps or a recurrence."""
    solver = build(ALPHAS_CUMPROD, 10)
    denoise = network_denoise(solver, 2, seed=4)
    noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    states = repeated_noise(noise, 10)
    for _ in range(k):
        predictions = denoise(states[:, :-1], slice(0, 10))
        states = solver.a[:, None, None] * noise[:, None] + torch.einsum(
            "ti,biha->btha", solver.C, predictions
        )
    recurrence = make_recurrence("semilinear", solver)
    found = iterated(denoise, solver, repeated_noise(noise, 10), recurrence=recurrence, iterations=k)[-1]
    torch.testing.assert_close(found, states, atol=1e-10, rtol=0)


@fixtures_do_not_change
@given(steps=st.integers(1, 100), seed=st.integers(0, 1000), build=st.sampled_from([ddim, dpmpp_2m]))
def test_preconditioned_converges_at_once_for_a_gaussian(
    random_covariance: Callable[[int, int], Tensor],
    gaussian_denoise: Callable[[Solver, Tensor, Tensor], Denoise],
    iterated: Iterated,
    steps: int,
    seed: int,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    covariance = random_covariance(6, seed)
    denoise = gaussian_denoise(solver, torch.randn(3, 2, dtype=torch.float64), covariance)
    noise = torch.randn(2, 3, 2, dtype=torch.float64)
    expected = sample_sequential(denoise, solver, noise)
    initial = fresh_noise(noise, torch.randn(2, steps, 3, 2, dtype=torch.float64))
    recurrence = make_recurrence("preconditioned", solver, covariance)
    found = iterated(denoise, solver, initial, recurrence=recurrence, iterations=1)[-1]
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


@every_solver
@pytest.mark.parametrize("jacobian", JACOBIANS)
def test_tolerance_stops_early_and_close(
    network_denoise: MakeDenoise,
    random_covariance: Callable[[int, int], Tensor],
    iterated: Iterated,
    jacobian: str,
    build: Build,
) -> None:
    solver = build(ALPHAS_CUMPROD, 25)
    denoise = network_denoise(solver, 2, seed=5)
    recurrence = make_recurrence(jacobian, solver, random_covariance(SIZE, 2))
    noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    exact = sample_sequential(denoise, solver, noise)[:, -1]
    loose, tight = (
        iterated(
            denoise,
            solver,
            repeated_noise(noise, 25),
            recurrence=recurrence,
            converged=within_tolerance(tolerance, solver),
        )
        for tolerance in (0.1, 1e-4)
    )
    assert len(loose) <= len(tight)
    if jacobian != "jacobi":  # jacobi moves one state further per iteration, whatever the tolerance
        assert len(tight) < 25
    assert (tight[-1][:, -1] - exact).abs().max() < 1e-3


def test_frozen_states_are_not_evaluated_again(network_denoise: MakeDenoise, iterated: Iterated) -> None:
    solver = ddim(ALPHAS_CUMPROD, 6)
    denoise = network_denoise(solver, 1, seed=0)
    evaluated: list[list[int]] = []

    def counting(states: Tensor, steps: slice) -> Tensor:
        evaluated.append(list(range(6))[steps])
        assert states.shape[1] == len(evaluated[-1])
        return denoise(states, steps)

    noise = torch.randn(1, *SHAPE, dtype=torch.float64)
    recurrence = make_recurrence("drift", solver)
    iterated(counting, solver, repeated_noise(noise, 6), recurrence=recurrence, iterations=3)
    assert evaluated == [[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 4, 5]]
    evaluated.clear()
    iterated(counting, solver, repeated_noise(noise, 6), recurrence=recurrence, window=2)
    assert evaluated == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5]]


def test_float32_agrees_with_float64(random_covariance: Callable[[int, int], Tensor]) -> None:
    exact_solver = ddim(ALPHAS_CUMPROD, 16)
    covariance = random_covariance(SIZE, 3)
    noise = torch.randn(2, *SHAPE, dtype=torch.float64)
    config = SamplerConfig(
        "picard", "ddim", 16, stop=StopConfig(4), picard=PicardConfig("preconditioned", "gaussian")
    )
    answers = []
    for solver, x in ((exact_solver, noise), (exact_solver.to("cpu", torch.float32), noise.float())):
        torch.manual_seed(0)
        network = TINY.build_network(PUSHT).requires_grad_(False).to(x.dtype)
        condition = torch.ones(2, TINY.cond_dim(PUSHT), dtype=x.dtype)
        sampler = make_sampler(config, Ingredients(solver, covariance.to(x.dtype)))
        denoise = make_denoise(network, solver, condition)
        answers.append(sampler(lambda _, denoise=denoise: denoise, x, torch.randn).actions.double())
    torch.testing.assert_close(answers[1], answers[0], atol=1e-4, rtol=0)


def test_wrong_use_is_refused() -> None:
    solver = ddim(ALPHAS_CUMPROD, 4)
    for picard, message in (
        (PicardConfig("preconditioned", "fresh"), "'preconditioned' needs the covariance"),
        (PicardConfig("drift", "gaussian"), "'gaussian' needs the covariance"),
    ):
        with pytest.raises(ValueError, match=message):
            make_sampler(SamplerConfig("picard", "ddim", 4, picard=picard), Ingredients(solver))
    with pytest.raises(ValueError, match="unknown Jacobian 'secant', must be one of jacobi, drift"):
        make_recurrence("secant", solver)
    with pytest.raises(ValueError, match="unknown start 'middle', must be one of fresh, repeated"):
        make_start("middle", solver)
    stochastic = ddpm(ALPHAS_CUMPROD, 4)
    with pytest.raises(ValueError, match="the method parasolver needs a deterministic solver"):
        make_sampler(SamplerConfig("parasolver", "ddpm", 4), Ingredients(stochastic))
    iterates = picard_iterates(
        [lambda s, i: s], stochastic, torch.zeros(1, 5, 2, 2), recurrences=[make_recurrence("drift", solver)]
    )
    with pytest.raises(ValueError, match="needs a deterministic solver"):
        next(iterates)


def test_sub_intervals_of_several_steps_refuse_a_multistep_solver() -> None:
    solver = dpmpp_2m(ALPHAS_CUMPROD, 4)
    with pytest.raises(ValueError, match=r"sub-intervals of several steps .* a multistep solver"):
        sub_interval_solver(solver, 2)
    assert sub_interval_solver(solver, 4) is solver
