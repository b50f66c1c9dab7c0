"""Properties of every Jacobian with every start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy, PicardConfig, StopConfig
from policy.denoiser import Denoise, make_denoise
from policy.networks.unet import ConditionalUnet1D
from policy.sampling import SamplerConfig, picard_iterates, sample_sequential
from policy.sampling.methods import make_sampler
from policy.sampling.recurrence import JACOBIANS, make_recurrence
from policy.sampling.sampler import Ingredients
from policy.sampling.start import STARTS, exact_states, make_start
from policy.solvers import SOLVERS, Solver, ddim
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
SHAPE = (16, 2)
SIZE = 32
MakeDenoise = Callable[[Solver, int, int], Denoise]
MakeCovariance = Callable[[int, int], Tensor]

DETERMINISTIC = [build for name, build in SOLVERS.items() if name != "ddpm"]

every_jacobian = pytest.mark.parametrize("jacobian", JACOBIANS)
every_start = pytest.mark.parametrize("start", STARTS)


def seeded_noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("build", DETERMINISTIC)
@every_jacobian
@every_start
def test_every_pair_ends_at_the_sequential_answer(
    network_denoise: MakeDenoise,
    random_covariance: MakeCovariance,
    jacobian: str,
    start: str,
    build: Callable[[Tensor, int], Solver],
) -> None:
    solver = build(ALPHAS_CUMPROD, 10).to("cpu", torch.float32)
    denoise = network_denoise(solver, 2, 0)
    covariance = random_covariance(SIZE, 0).float()
    noise = seeded_noise((2, *SHAPE)).float()
    expected = sample_sequential(denoise, solver, noise)[:, -1]

    def sample(iterations: int) -> Tensor:
        config = SamplerConfig(
            "picard", "ddim", 10, stop=StopConfig(iterations), picard=PicardConfig(jacobian, start)
        )
        sampler = make_sampler(config, Ingredients(solver, covariance))
        return sampler(lambda _: denoise, noise, lambda shape: seeded_noise(shape, 1).float()).actions

    torch.testing.assert_close(sample(10), expected, atol=1e-5, rtol=0)
    assert (sample(1) - expected).abs().max() > 1e-3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    steps=st.integers(1, 25),
    iterations=st.integers(1, 25),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    jacobian=st.sampled_from(JACOBIANS),
    start=st.sampled_from(STARTS),
    build=st.sampled_from(DETERMINISTIC),
)
def test_each_network_evaluation_makes_one_more_state_exact(
    network_denoise: MakeDenoise,
    random_covariance: MakeCovariance,
    steps: int,
    iterations: int,
    batch: int,
    seed: int,
    jacobian: str,
    start: str,
    build: Callable[[Tensor, int], Solver],
) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    denoise = network_denoise(solver, batch, seed)
    covariance = random_covariance(SIZE, seed)
    noise = seeded_noise((batch, *SHAPE), seed)
    exact = sample_sequential(denoise, solver, noise)
    states = make_start(start, solver, covariance=covariance)(denoise, noise, seeded_noise)
    first = exact_states(start)
    recurrence = make_recurrence(jacobian, solver, covariance)
    iterates = picard_iterates([denoise], solver, states, recurrences=[recurrence], first=first)
    done = 0
    for done, iterate in enumerate(islice(iterates, iterations), 1):
        known = first + done
        assert iterate.first == known
        torch.testing.assert_close(iterate.states[:, : known + 1], exact[:, : known + 1], atol=1e-8, rtol=0)
    assert done == min(iterations, steps - first)


@every_jacobian
@every_start
def test_float32_agrees_with_float64(
    policy: DiffusionPolicy,
    observations: Tensor,
    random_covariance: MakeCovariance,
    jacobian: str,
    start: str,
) -> None:
    config = SamplerConfig("picard", "ddim", 16, stop=StopConfig(5), picard=PicardConfig(jacobian, start))

    def sample(network: ConditionalUnet1D, dtype: torch.dtype) -> Tensor:
        solver = ddim(ALPHAS_CUMPROD, 16).to("cpu", dtype)
        condition = policy.normalizer.observation.normalize(observations).flatten(1)
        denoise = make_denoise(network, solver, condition.to(dtype))
        sampler = make_sampler(config, Ingredients(solver, random_covariance(SIZE, 3).to(dtype)))
        noise = seeded_noise((len(observations), *SHAPE)).to(dtype)
        return sampler(lambda _: denoise, noise, lambda shape: seeded_noise(shape, 1).to(dtype)).actions

    with torch.no_grad():
        single = sample(policy.network, torch.float32)
        double = sample(copy.deepcopy(policy.network).double(), torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    steps=st.integers(1, 12),
    seed=st.integers(0, 1000),
    jacobian=st.sampled_from(JACOBIANS),
    start=st.sampled_from(["repeated", "held", "gaussian"]),
    window=st.sampled_from([None, 3]),
)
def test_any_linear_solver_will_do(
    random_covariance: Callable[[int, int], Tensor],
    steps: int,
    seed: int,
    jacobian: str,
    start: str,
    window: int | None,
) -> None:
    """Multistep of whatever order: an a and a strictly lower triangular C are all that there is to a solver."""
    generator = torch.Generator().manual_seed(seed)
    C = torch.randn(steps + 1, steps, generator=generator, dtype=torch.float64).tril(-1) / steps
    C.diagonal(-1).add_(1)
    a = torch.rand(steps + 1, generator=generator, dtype=torch.float64) + 0.1
    a[0] = 1
    alphas_cumprod = torch.linspace(0.1, 1, steps + 1, dtype=torch.float64)
    solver = Solver(torch.arange(steps).flip(0), alphas_cumprod, a, C)
    covariance = random_covariance(8, seed)

    def denoise(states: Tensor, steps: slice) -> Tensor:
        return torch.tanh(states + torch.sin(2 * states.roll(1, -2)))

    noise = torch.randn((2, 4, 2), generator=generator, dtype=torch.float64)
    exact = sample_sequential(denoise, solver, noise)
    first = exact_states(start)
    states = make_start(start, solver, covariance=covariance)(denoise, noise, seeded_noise)
    iterates = picard_iterates(
        [denoise],
        solver,
        states,
        recurrences=[make_recurrence(jacobian, solver, covariance)],
        first=first,
        window=window,
    )
    for iterate in iterates:
        first += 1
        assert iterate.first == first
        torch.testing.assert_close(iterate.states[:, : first + 1], exact[:, : first + 1], atol=1e-9, rtol=0)
    assert first == steps
