from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PcmConfig, PicardConfig, SamplerConfig, StopConfig
from policy.denoiser import Denoise, make_denoise
from policy.networks.lora import merge_lora
from policy.pcm import PCM
from policy.sampling import sample_sequential
from policy.sampling.recurrence import make_recurrence
from policy.sampling.start import states_of_guess
from policy.sampling.warm_start import (
    COVARIANCE_LEFT,
    NOISE_LEFT,
    continued_actions,
    continued_noise,
    guessed_actions,
    noise_effect,
)
from policy.solvers import Solver, ddim
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod

ALPHAS_CUMPROD = squared_cosine_alphas_cumprod(100)
PX = 250  # half the range of the actions


def noise(seed: int = 0) -> Tensor:
    return torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(seed))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(
    method=st.sampled_from(["picard", "parasolver", "pcm"]),
    space=st.sampled_from(["feature", "parameter"]),
    warm_start=st.sampled_from(["actions", "actions_and_noise"]),
    jacobian=st.sampled_from(["drift", "semilinear", "preconditioned"]),
    steps=st.integers(1, 6),
    memory=st.integers(0, 2),
    executed=st.integers(1, 15),
)
def test_the_answer_is_the_cold_starts_with_the_same_noise(
    policy: DiffusionPolicy,
    make_pcm: Callable[..., PCM],
    random_covariance: Callable[[int, int], Tensor],
    observations: Tensor,
    method: str,
    space: str,
    warm_start: str,
    jacobian: str,
    steps: int,
    memory: int,
    executed: int,
) -> None:
    policy = replace(policy, covariance=random_covariance(32, 0).float())
    if method == "pcm":
        policy = policy.with_pcm(make_pcm(policy, "lora"))
    cold, warm = (
        policy.with_sampler(
            SamplerConfig(
                method,
                "ddim",
                steps,
                parallel=ParallelConfig(memory=memory, warm_start=start),
                picard=PicardConfig() if method == "parasolver" else PicardConfig(jacobian, "fresh"),
                pcm=PcmConfig(space if method == "pcm" else "auto"),
            )
        )
        for start in ("none", warm_start)
    )
    previous = warm.predict(observations.flip(0), noise=noise(1))
    prediction = warm.predict(observations, noise=noise(), previous=previous, executed=executed)
    if warm_start == "actions":
        assert torch.equal(prediction.noise, noise())
    expected = cold.predict(observations, noise=prediction.noise, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prediction.actions, expected.actions, atol=1e-4 * PX, rtol=0)


def test_the_states_of_a_guess_lead_from_the_noise_to_the_guess(
    network_denoise: Callable[[Solver, int, int], Denoise],
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 10)
    guess = noise(1).double().clamp(-1, 1)
    states = states_of_guess(solver, noise().double(), guess)
    assert states.shape == (3, 11, 16, 2)
    assert torch.equal(states[:, 0], noise().double())
    torch.testing.assert_close(states[:, -1], guess)
    # A policy that is certain of its answer needs no iteration at all.
    certain = sample_sequential(lambda states, _: guess[:, None].expand_as(states), solver, noise().double())
    torch.testing.assert_close(states, certain)


def test_a_close_guess_saves_iterations(
    network_denoise: Callable[[Solver, int, int], Denoise], iterated: Callable[..., list[Tensor]]
) -> None:
    solver = ddim(ALPHAS_CUMPROD, 25)
    denoise = network_denoise(solver, 3, 0)
    drawn = noise().double()
    exact = sample_sequential(denoise, solver, drawn)[:, -1]
    recurrence = make_recurrence("semilinear", solver)

    def error(guess: Tensor) -> float:
        states = states_of_guess(solver, drawn, guess)
        found = iterated(denoise, solver, states, recurrence=recurrence, iterations=3)[-1]
        return float((found[:, -1] - exact).abs().max())

    assert error(exact + 0.01) < 0.5 * error(torch.zeros_like(exact))


@pytest.mark.parametrize(("stiffness", "expected"), [(1.0, "picard"), (0.0, "pcm")])
def test_a_pcm_that_is_switched_off_is_left_out(
    policy: DiffusionPolicy,
    make_pcm: Callable[..., PCM],
    observations: Tensor,
    stiffness: float,
    expected: str,
) -> None:
    pcm = make_pcm(policy, "lora")
    sampler = SamplerConfig(
        "pcm",
        "ddim",
        6,
        stop=StopConfig(2),
        parallel=ParallelConfig(warm_start="actions"),
        picard=PicardConfig("drift", "fresh"),
        pcm=PcmConfig(stiffness=stiffness),
    )
    previous = policy.with_sampler(SamplerConfig("sequential", "ddim", 6)).predict(
        observations, noise=noise(1)
    )
    warm = policy.with_pcm(pcm).with_sampler(sampler).predict(observations, noise=noise(), previous=previous)
    alone = policy if expected == "picard" else replace(policy, network=merge_lora(pcm.network))
    picard = alone.with_sampler(replace(sampler, method="picard", pcm=PcmConfig())).predict(
        observations, noise=noise(), previous=previous
    )
    torch.testing.assert_close(warm.actions, picard.actions, atol=1e-4 * PX, rtol=0)


def test_actions_go_on_from_where_they_end() -> None:
    actions = torch.linspace(-0.4, 0.2, 7).repeat(2, 1).T[None]  # (1, 7, 2), 0.1 a step
    continued = continued_actions(actions, 3)
    torch.testing.assert_close(continued[:, :4], actions[:, 3:])
    steps = continued.diff(dim=1)[0, 3:, 0]
    assert (steps > 0).all()
    assert (steps.diff() < 0).all()
    assert steps[0] < 0.1


def test_actions_stay_in_their_range_and_hold_when_they_were_held() -> None:
    racing = torch.tensor([0.0, 0.9]).repeat(2, 1).T[None]
    assert continued_actions(racing, 1).max() == 1
    held = torch.full((1, 6, 2), 0.3)
    assert torch.equal(continued_actions(held, 5), held)


def test_a_guess_changes_its_noise(random_covariance: Callable[[int, int], Tensor]) -> None:
    """The part of a Gaussian's answer that comes from its noise does not move on: the new noise replaces it."""
    covariance = 0.01 * random_covariance(32, 0).float()
    effect = noise_effect(covariance)
    torch.testing.assert_close(effect @ effect, NOISE_LEFT**2 * covariance, atol=1e-6, rtol=1e-4)
    mean = torch.full((3, 16, 2), 0.3)

    def answer(noise: Tensor) -> Tensor:
        return mean + (noise.flatten(1) @ effect).view_as(noise)

    guess = guessed_actions(answer(noise(1)), noise(1), noise=noise(2), executed=5, effect=effect)
    torch.testing.assert_close(guess, answer(noise(2)), atol=1e-5, rtol=0)
    assert guessed_actions(mean, noise(1), noise=100 * noise(2), executed=5, effect=effect).abs().max() == 1


def test_without_a_covariance_a_guess_knows_nothing_of_noise() -> None:
    actions = noise(3).clamp(-1, 1)
    guess = guessed_actions(actions, noise(1), noise=noise(2), executed=5)
    assert torch.equal(guess, continued_actions(actions, 5))


@pytest.mark.parametrize("executed", [1, 8, 15])
def test_noise_moves_along_and_its_end_is_fresh(executed: int) -> None:
    moved = continued_noise(noise(1), executed, noise(2))
    assert torch.equal(moved[:, : 16 - executed], noise(1)[:, executed:])
    assert torch.equal(moved[:, 16 - executed :], noise(2)[:, 16 - executed :])


def test_without_a_warm_start_the_previous_prediction_counts_nothing(
    policy: DiffusionPolicy, observations: Tensor
) -> None:
    sampler = SamplerConfig(
        "picard", "ddim", 10, stop=StopConfig(2), picard=PicardConfig("drift", "repeated")
    )
    cold = policy.with_sampler(sampler)
    previous = cold.predict(observations, noise=noise(1))
    actions = cold.predict(observations, noise=noise(), previous=previous).actions
    assert torch.equal(actions, cold.predict(observations, noise=noise()).actions)
    warm = policy.with_sampler(replace(sampler, parallel=ParallelConfig(warm_start="actions")))
    assert torch.equal(actions, warm.predict(observations, noise=noise()).actions)
    assert not torch.equal(actions, warm.predict(observations, noise=noise(), previous=previous).actions)


def test_a_prediction_for_other_robots_is_refused(policy: DiffusionPolicy, observations: Tensor) -> None:
    warm = policy.with_sampler(
        SamplerConfig(
            "picard", "ddim", 4, parallel=ParallelConfig(warm_start="actions"), picard=PicardConfig("drift")
        )
    )
    previous = warm.predict(observations[:2])
    with pytest.raises(ValueError, match="previous has batch size 2, observations have 3"):
        warm.predict(observations, previous=previous)


def test_warm_starts_of_sequential_samplers_are_refused() -> None:
    message = r"sampler\.parallel\.warm_start=actions belongs to the methods picard, .*, not to sequential"
    with pytest.raises(ValueError, match=message):
        SamplerConfig("sequential", "ddim", 10, parallel=ParallelConfig(warm_start="actions"))
    with pytest.raises(
        ValueError,
        match=r"sampler\.parallel\.warm_start must be one of auto, none, actions, actions_and_noise",
    ):
        SamplerConfig("picard", "ddim", 10, parallel=ParallelConfig(warm_start="noise"))


def first_shares(steps: int) -> Tensor:
    """Shares of the covariance in the first iteration after a warm start."""
    return torch.tensor([COVARIANCE_LEFT] * (steps - 1) + [1.0], dtype=torch.float64)


def test_the_first_iteration_trusts_the_guess(
    policy: DiffusionPolicy,
    random_covariance: Callable[[int, int], Tensor],
    iterated: Callable[..., list[Tensor]],
    observations: Tensor,
) -> None:
    """The first iteration uses a share of the covariance in all states but the last; later ones use all of it."""
    covariance = random_covariance(32, 0).float()
    policy = replace(policy, covariance=covariance)
    sampler = SamplerConfig(
        "picard", "ddim", 10, stop=StopConfig(3), parallel=ParallelConfig(warm_start="actions")
    )
    previous = policy.with_sampler(sampler).predict(observations, noise=noise(1))
    warm = policy.with_sampler(sampler).predict(observations, noise=noise(), previous=previous)

    solver = policy.with_sampler(sampler).solver
    condition = policy.normalizer.observation.normalize(observations).flatten(1)
    denoise = make_denoise(policy.network, solver, condition)
    normalized = policy.normalizer.action.normalize(previous.actions)
    guess = guessed_actions(
        normalized, previous.noise, noise=noise(), executed=8, effect=noise_effect(covariance)
    )
    states = states_of_guess(solver, noise(), guess)
    with torch.no_grad():
        for k, shares in enumerate((first_shares(10), None, None)):
            recurrence = make_recurrence("preconditioned", solver, covariance, shares=shares)
            states = iterated(denoise, solver, states, recurrence=recurrence, iterations=1, first=k)[-1]
    expected = policy.normalizer.action.unnormalize(states[:, -1].clamp(-1, 1))
    torch.testing.assert_close(warm.actions, expected, atol=1e-5 * PX, rtol=0)


@pytest.mark.parametrize("space", ["feature", "parameter"])
def test_a_pcm_that_knows_warm_starts_makes_its_iterations_after_them(
    policy: DiffusionPolicy,
    make_pcm: Callable[..., PCM],
    iterated: Callable[..., list[Tensor]],
    observations: Tensor,
    space: str,
) -> None:
    """Cold with its K of cold starts, warm with that of warm ones, and in both the base's answer at the end."""
    policy = replace(policy, covariance=0.1 * torch.eye(32))
    known = {"jacobian": "preconditioned", "warm_start": "actions", "warm_iterations": 1, "iterations": 2}
    pcm = make_pcm(policy, "lora", **known)
    # The file alone says that it starts warm.
    sampler = SamplerConfig("pcm", stop=StopConfig(3, warm_iterations=2), pcm=PcmConfig(space))
    served = policy.with_pcm(pcm).with_sampler(sampler)
    first = served.predict(observations, noise=noise(1), generator=torch.Generator().manual_seed(0))
    warm = served.predict(observations, noise=noise(), previous=first)
    assert (first.depth, warm.depth) == (3, 2)
    without = policy.with_pcm(replace(pcm, warm_start="none", warm_iterations=0))
    cold = without.with_sampler(SamplerConfig("pcm", stop=StopConfig(3), pcm=PcmConfig(space)))
    expected = cold.predict(observations, noise=noise(1), generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.actions, expected.actions)

    solver, covariance = served.solver, policy.covariance
    condition = policy.normalizer.observation.normalize(observations).flatten(1)
    guess = guessed_actions(
        policy.normalizer.action.normalize(first.actions),
        first.noise,
        noise=noise(),
        executed=8,
        effect=noise_effect(covariance),
    )
    states = states_of_guess(solver, noise(), guess)
    networks = (merge_lora(pcm.network), policy.network)
    with torch.no_grad():
        for network, shares in zip(networks, (first_shares(6), None), strict=True):
            recurrence = make_recurrence("preconditioned", solver, covariance, shares=shares)
            denoise = make_denoise(network, solver, condition)
            states = iterated(denoise, solver, states, recurrence=recurrence, iterations=1)[-1]
    actions = policy.normalizer.action.unnormalize(states[:, -1].clamp(-1, 1))
    torch.testing.assert_close(warm.actions, actions, atol=1e-4 * PX, rtol=0)
    to_the_end = served.with_sampler(SamplerConfig("pcm")).predict(
        observations, noise=noise(), previous=first
    )
    answer = policy.with_sampler(SamplerConfig("sequential", "ddim", 6)).predict(observations, noise=noise())
    torch.testing.assert_close(to_the_end.actions, answer.actions, atol=1e-4 * PX, rtol=0)


def test_a_limit_after_warm_starts_needs_one() -> None:
    message = r"sampler\.stop\.warm_iterations=1 needs sampler\.parallel\.warm_start"
    with pytest.raises(ValueError, match=message):
        SamplerConfig("picard", stop=StopConfig(warm_iterations=1)).resolved()
