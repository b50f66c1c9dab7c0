from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import (
    ConditionalUnet1D,
    DiffusionPolicy,
    ParallelConfig,
    PcmConfig,
    PicardConfig,
    SamplerConfig,
    StopConfig,
)
from policy.denoiser import Denoise, make_denoise
from policy.networks.lora import merge_lora
from policy.pcm import PCM
from policy.sampling import picard_step
from policy.sampling.recurrence import JACOBIANS, make_recurrence
from policy.sampling.start import STARTS, repeated_noise
from policy.sampling.switching import Switch, feature_space, parameter_space, switching_schedule
from policy.solvers import Solver

MakePCM = Callable[..., PCM]
Iterated = Callable[..., list[Tensor]]
PX = 250  # half the range of the actions


@pytest.fixture
def gaussian_policy(
    policy: DiffusionPolicy, random_covariance: Callable[[int, int], Tensor]
) -> DiffusionPolicy:
    return replace(policy, covariance=random_covariance(32, 0).float())


def noise(seed: int = 0) -> Tensor:
    return torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(seed))


def watched(policy: DiffusionPolicy) -> tuple[DiffusionPolicy, list[ConditionalUnet1D], list[str]]:
    """The same policy, the networks that it may evaluate, and the model of each evaluation."""
    bound: list[ConditionalUnet1D] = []
    calls: list[str] = []

    def bind(network: ConditionalUnet1D, solver: Solver, condition: Tensor) -> Denoise:
        bound.append(network)
        denoise = make_denoise(network, solver, condition)

        def watching(states: Tensor, steps: slice) -> Tensor:
            calls.append("base" if network is policy.network else "pcm")
            return denoise(states, steps)

        return watching

    return replace(policy, bind_network=bind), bound, calls


@pytest.mark.parametrize(
    ("stiffness", "iterations", "expected"),
    [
        (0, 5, ([], 1)),
        (1, 9, ([1, 2 / 3, 1 / 3], 0)),
        (1, 2, ([1, 2 / 3], 0)),
        (2, 9, ([1, 1 / 3], 0)),
        (1000, 9, ([1], 0)),
    ],
)
def test_weights_fall_from_one_to_zero(
    stiffness: float, iterations: int, expected: tuple[list[float], float]
) -> None:
    schedule = switching_schedule(stiffness, 3, iterations=iterations)
    assert schedule.changing == pytest.approx(expected[0])
    assert schedule.last == expected[1]


@pytest.mark.parametrize("space", ["feature", "parameter"])
@pytest.mark.parametrize("jacobian", ["drift", "preconditioned"])
def test_weight_zero_is_picard_exactly(
    gaussian_policy: DiffusionPolicy,
    make_pcm: MakePCM,
    iterated: Iterated,
    space: str,
    jacobian: str,
) -> None:
    policy = gaussian_policy.with_sampler(SamplerConfig("sequential", "ddim", 6))
    pcm = make_pcm(policy, "lora")
    condition = torch.ones(3, 40)
    base, trained = (make_denoise(n, policy.solver, condition) for n in (policy.network, pcm.network))
    switch = (
        feature_space(base, trained)
        if space == "feature"
        else parameter_space(base, merged={}, adapted=trained, network=pcm.network)
    )
    recurrence = make_recurrence(jacobian, policy.solver, policy.covariance)

    @torch.no_grad()
    def picard(denoise: Denoise) -> Tensor:
        return iterated(
            denoise, policy.solver, repeated_noise(noise(), 6), recurrence=recurrence, iterations=2
        )[-1]

    assert torch.equal(picard(switch(0)), picard(base))
    assert not torch.equal(picard(switch(0.01)), picard(base))


@torch.no_grad()
def test_feature_space_mixes_whole_iterations(policy: DiffusionPolicy, make_pcm: MakePCM) -> None:
    """X ← λ·Φ(X; θ_PCM) + (1 − λ)·Φ(X; θ_base), PCM paper, section on feature-space switching."""
    policy = policy.with_sampler(SamplerConfig("sequential", "ddim", 6))
    pcm = make_pcm(policy, "full")
    base, trained = (make_denoise(n, policy.solver, torch.ones(3, 40)) for n in (policy.network, pcm.network))
    recurrence = make_recurrence("semilinear", policy.solver)
    states = repeated_noise(noise(), 6)

    def step(denoise: Denoise) -> Tensor:
        return picard_step(denoise, policy.solver, states, recurrence=recurrence)

    expected = 0.3 * step(trained) + 0.7 * step(base)
    torch.testing.assert_close(step(feature_space(base, trained)(0.3)), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_parameter_space_is_the_network_with_scaled_adapters(
    policy: DiffusionPolicy, make_pcm: MakePCM
) -> None:
    policy = policy.with_sampler(SamplerConfig("sequential", "ddim", 6))
    pcm = make_pcm(policy, "lora")
    networks = (policy.network, pcm.network, merge_lora(pcm.network, 0.3))
    base, trained, merged = (make_denoise(network, policy.solver, torch.ones(3, 40)) for network in networks)
    switch: Switch = parameter_space(base, merged={}, adapted=trained, network=pcm.network)
    weak, strong = switch(0.3), switch(1)
    states, steps = repeated_noise(noise(), 5), slice(0, 6)
    before = weak(states, steps)
    torch.testing.assert_close(before, merged(states, steps), atol=1e-5, rtol=0)
    assert not torch.equal(strong(states, steps), before)
    assert torch.equal(weak(states, steps), before)  # whatever was evaluated in between
    assert parameter_space(base, merged={0.3: merged}, adapted=trained, network=pcm.network)(0.3) is merged


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    space=st.sampled_from(["feature", "parameter"]),
    stiffness=st.floats(0.3, 1000),
    trained_iterations=st.integers(1, 12),
    steps=st.integers(1, 8),
    jacobian=st.sampled_from(JACOBIANS),
    start=st.sampled_from(STARTS),
    start_model=st.sampled_from(["base", "pcm"]),
    tolerance=st.sampled_from([0.0, 1e-6]),
    window=st.integers(0, 4),
    solver=st.sampled_from(["ddim", "dpmpp_2m"]),
)
def test_enough_iterations_give_the_bases_answer(
    gaussian_policy: DiffusionPolicy,
    make_pcm: MakePCM,
    observations: Tensor,
    space: str,
    stiffness: float,
    trained_iterations: int,
    steps: int,
    jacobian: str,
    start: str,
    start_model: str,
    tolerance: float,
    window: int,
    solver: str,
) -> None:
    pcm = make_pcm(gaussian_policy, "lora", iterations=trained_iterations, start_model=start_model)
    sampler = SamplerConfig(
        "pcm",
        solver,
        steps,
        stop=StopConfig(tolerance=tolerance),
        parallel=ParallelConfig(window=window),
        picard=PicardConfig(jacobian, start),
        pcm=PcmConfig(space, stiffness),
    )
    policy = gaussian_policy.with_pcm(pcm).with_sampler(sampler)
    expected = (
        policy.with_sampler(SamplerConfig("sequential", solver, steps))
        .predict(observations, noise=noise())
        .actions
    )
    actions = policy.predict(observations, noise=noise(), generator=torch.Generator().manual_seed(0)).actions
    torch.testing.assert_close(actions, expected, atol=1e-4 * PX, rtol=0)


def test_stiffness_zero_gives_the_pcms_own_answer(
    gaussian_policy: DiffusionPolicy, make_pcm: MakePCM, observations: Tensor
) -> None:
    pcm = make_pcm(gaussian_policy, "lora")
    sampler = SamplerConfig(
        "pcm", "ddim", 6, picard=PicardConfig("semilinear", "gaussian"), pcm=PcmConfig(stiffness=0)
    )
    actions = gaussian_policy.with_pcm(pcm).with_sampler(sampler).predict(observations, noise=noise()).actions
    trained = replace(
        gaussian_policy, network=merge_lora(pcm.network), sampler=SamplerConfig("sequential", "ddim", 6)
    )
    expected = trained.predict(observations, noise=noise()).actions
    torch.testing.assert_close(actions, expected, atol=1e-4 * PX, rtol=0)
    assert (
        actions
        - gaussian_policy.with_sampler(SamplerConfig("sequential", "ddim", 6))
        .predict(observations, noise=noise())
        .actions
    ).abs().max() > 1


@pytest.mark.parametrize(
    ("space", "start_model", "expected"),
    [
        # λ = 1, 1/2, 0, after the start's call
        ("feature", "base", ["base", "pcm", "pcm", "base", "base"]),
        ("feature", "pcm", ["pcm", "pcm", "pcm", "base", "base"]),
        ("parameter", "base", ["base", "pcm", "pcm", "base"]),
        ("parameter", "pcm", ["pcm", "pcm", "pcm", "base"]),
    ],
)
def test_no_model_of_weight_zero_is_evaluated(
    gaussian_policy: DiffusionPolicy,
    make_pcm: MakePCM,
    observations: Tensor,
    space: str,
    start_model: str,
    expected: list[str],
) -> None:
    pcm = make_pcm(gaussian_policy, "lora", iterations=2, start_model=start_model)
    sampler = SamplerConfig(
        "pcm",
        "ddim",
        6,
        stop=StopConfig(3),
        picard=PicardConfig("preconditioned", "gaussian"),
        pcm=PcmConfig(space),
    )
    policy, _, calls = watched(gaussian_policy.with_pcm(pcm).with_sampler(sampler))
    prediction = policy.predict(observations, noise=noise())
    assert calls == expected
    assert prediction.depth == 4  # the two models of one iteration do not wait for each other


def test_many_weights_take_no_more_memory_than_some(
    gaussian_policy: DiffusionPolicy,
    make_pcm: MakePCM,
    observations: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A weight λ without a merged copy is evaluated by the adapters, with the same result."""
    sampler = SamplerConfig(
        "pcm", "ddim", 12, stop=StopConfig(12), picard=PicardConfig("preconditioned", "fresh")
    )
    trained = gaussian_policy.with_pcm(make_pcm(gaussian_policy, "lora", iterations=30))
    answers = []
    for copies in (8, 0):
        monkeypatch.setattr("policy.pcm_networks.MERGED_COPIES", copies)
        policy, bound, _ = watched(trained.with_sampler(sampler))
        generator = torch.Generator().manual_seed(0)
        answers.append(policy.predict(observations, noise=noise(), generator=generator).actions)
        assert len(bound) == 2 + copies
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4 * PX, rtol=0)


def test_a_sampler_without_the_pcm_that_it_needs_is_refused(
    policy: DiffusionPolicy, make_pcm: MakePCM
) -> None:
    with pytest.raises(ValueError, match=r"sampler\.method=pcm needs a PCM, and the policy has none"):
        policy.with_sampler(SamplerConfig("pcm"))
    full = policy.with_pcm(make_pcm(policy, "full"))
    with pytest.raises(
        ValueError, match=r"sampler\.pcm\.space=parameter needs a PCM with adapters, got full"
    ):
        full.with_sampler(SamplerConfig("pcm", pcm=PcmConfig("parameter")))
    full.with_sampler(SamplerConfig("pcm"))


def test_picard_takes_no_notice_of_a_pcm(
    policy: DiffusionPolicy, make_pcm: MakePCM, observations: Tensor
) -> None:
    sampler = SamplerConfig("picard", "ddim", 6, stop=StopConfig(2), picard=PicardConfig("drift", "repeated"))
    expected = policy.with_sampler(sampler).predict(observations, noise=noise()).actions
    with_pcm = policy.with_pcm(make_pcm(policy, "full")).with_sampler(sampler)
    assert torch.equal(with_pcm.predict(observations, noise=noise()).actions, expected)


@pytest.mark.parametrize(("weights", "space"), [("lora", "parameter"), ("full", "feature")])
def test_a_pcm_knows_what_it_was_trained_for(
    gaussian_policy: DiffusionPolicy, make_pcm: MakePCM, observations: Tensor, weights: str, space: str
) -> None:
    pcm = make_pcm(gaussian_policy, weights, solver="dpmpp_2m", jacobian="semilinear", start="gaussian")
    with_pcm = gaussian_policy.with_pcm(pcm)
    said = SamplerConfig(
        "pcm",
        "dpmpp_2m",
        6,
        parallel=ParallelConfig(warm_start="none"),
        picard=PicardConfig("semilinear", "gaussian"),
        pcm=PcmConfig(space),
    )
    assert with_pcm.with_sampler(SamplerConfig("pcm")).resolved_sampler == said
    found, expected = (
        with_pcm.with_sampler(sampler).predict(observations, noise=noise()).actions
        for sampler in (SamplerConfig("pcm", stop=StopConfig(2)), replace(said, stop=StopConfig(2)))
    )
    assert torch.equal(found, expected)
    other = with_pcm.with_sampler(SamplerConfig("pcm", steps=4))
    assert (other.resolved_sampler.solver, other.resolved_sampler.steps) == ("dpmpp_2m", 4)
