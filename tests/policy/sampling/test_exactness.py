"""What must be true of every formulation with every initial trajectory."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy
from policy.denoiser import Denoise, make_denoise
from policy.networks.unet import ConditionalUnet1D
from policy.sampling import SamplerConfig, sample_picard, sample_sequential
from policy.sampling.recurrence import FORMULATIONS, make_recurrence
from policy.sampling.sampler import make_sampler
from policy.sampling.start import INITIALISATIONS, initial_calls, make_start
from policy.solvers.schedule import squared_cosine_alphas_cumprod
from policy.solvers.solver import Solver, ddim_solver, dpm_solver

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
SHAPE = (16, 2)
SIZE = 32
MakeDenoise = Callable[[Solver, int, int], Denoise]
MakeCovariance = Callable[[int, int], Tensor]

every_formulation = pytest.mark.parametrize("formulation", FORMULATIONS)
every_initialisation = pytest.mark.parametrize("initialisation", INITIALISATIONS)


def seeded_noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("build", [ddim_solver, dpm_solver])
@every_formulation
@every_initialisation
def test_every_pair_ends_at_the_sequential_answer(
    network_denoise: MakeDenoise,
    random_covariance: MakeCovariance,
    formulation: str,
    initialisation: str,
    build: Callable[[Tensor, int], Solver],
) -> None:
    solver = build(ALPHAS_CUMPROD, 10).to("cpu", torch.float32)
    denoise = network_denoise(solver, 2, 0)
    covariance = random_covariance(SIZE, 0).float()
    x0 = seeded_noise((2, *SHAPE)).float()
    expected = sample_sequential(denoise, solver, x0)[:, -1]

    def sample(iterations: int) -> Tensor:
        config = SamplerConfig(
            "picard", 10, iterations=iterations, formulation=formulation, initialisation=initialisation
        )
        sampler = make_sampler(config, solver, covariance)
        return sampler(lambda _: denoise, x0, lambda shape: seeded_noise(shape, 1).float()).actions

    torch.testing.assert_close(sample(10), expected, atol=1e-5, rtol=0)
    assert (sample(1) - expected).abs().max() > 1e-3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    steps=st.integers(1, 25),
    iterations=st.integers(1, 25),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
    formulation=st.sampled_from(FORMULATIONS),
    initialisation=st.sampled_from(INITIALISATIONS),
    build=st.sampled_from([ddim_solver, dpm_solver]),
)
def test_each_network_evaluation_makes_one_more_state_exact(
    network_denoise: MakeDenoise,
    random_covariance: MakeCovariance,
    steps: int,
    iterations: int,
    batch: int,
    seed: int,
    formulation: str,
    initialisation: str,
    build: Callable[[Tensor, int], Solver],
) -> None:
    solver = build(ALPHAS_CUMPROD, steps)
    denoise = network_denoise(solver, batch, seed)
    covariance = random_covariance(SIZE, seed)
    x0 = seeded_noise((batch, *SHAPE), seed)
    exact = sample_sequential(denoise, solver, x0)
    states = make_start(initialisation, solver, covariance)(denoise, x0, seeded_noise)
    first = initial_calls(initialisation)
    recurrence = make_recurrence(formulation, solver, covariance)
    result = sample_picard(denoise, solver, states, recurrence, iterations, first=first)
    known = min(first + iterations, steps)
    assert result.iterations == known - first
    torch.testing.assert_close(result.states[:, : known + 1], exact[:, : known + 1], atol=1e-8, rtol=0)


@every_formulation
@every_initialisation
def test_float32_agrees_with_float64(
    policy: DiffusionPolicy,
    observations: Tensor,
    random_covariance: MakeCovariance,
    formulation: str,
    initialisation: str,
) -> None:
    config = SamplerConfig("picard", 16, iterations=5, formulation=formulation, initialisation=initialisation)

    def sample(network: ConditionalUnet1D, dtype: torch.dtype) -> Tensor:
        solver = ddim_solver(ALPHAS_CUMPROD, 16).to("cpu", dtype)
        condition = policy.normalizer.observation.normalize(observations).flatten(1)
        denoise = make_denoise(network, solver, condition.to(dtype))
        sampler = make_sampler(config, solver, random_covariance(SIZE, 3).to(dtype))
        x0 = seeded_noise((len(observations), *SHAPE)).to(dtype)
        return sampler(lambda _: denoise, x0, lambda shape: seeded_noise(shape, 1).to(dtype)).actions

    with torch.no_grad():
        single = sample(policy.network, torch.float32)
        double = sample(copy.deepcopy(policy.network).double(), torch.float64)
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)
