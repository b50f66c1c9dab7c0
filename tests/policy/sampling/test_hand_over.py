from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PcmConfig, Prediction, SamplerConfig
from policy.pcm import PCM
from policy.sampling.hand_over import HAND_OVERS, make_overlap, overlap_weights


def noise(seed: int = 0) -> Tensor:
    return torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(seed))


def before(policy: DiffusionPolicy, observations: Tensor) -> Prediction:
    return policy.with_sampler(SamplerConfig("sequential", "ddim", 4)).predict(
        observations.flip(0), noise=noise(1)
    )


@given(horizon=st.integers(2, 64), executed=st.integers(1, 63), held=st.integers(0, 64))
def test_weights_hold_then_fall_to_nothing_at_the_end_of_the_overlap(
    horizon: int, executed: int, held: int
) -> None:
    weights = overlap_weights(horizon, executed=min(executed, horizon - 1), held=held)
    end = max(0, horizon - executed)
    assert weights[: min(held, end)] == [1.0] * min(held, end)
    assert weights[end:] == [0.0] * (horizon - end) or executed >= horizon
    assert all(earlier >= later for earlier, later in pairwise(weights))
    assert all(0 < weight < 1 for weight in weights[held:end])


def test_weights_are_those_of_real_time_chunking() -> None:
    """Equation 5 with H = 4 overlapping actions, d = 1: c = 3/4, 2/4, 1/4."""
    e = 2.718281828459045
    falling = [c * (e**c - 1) / (e - 1) for c in (0.75, 0.5, 0.25)]
    assert overlap_weights(6, executed=2, held=1) == pytest.approx([1, *falling, 0, 0])


def test_an_overlap_is_the_previous_actions_moved_on(observations: Tensor) -> None:
    actions = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(4))
    overlap = make_overlap(actions, executed=5, first=1, delay=2)
    pulled = overlap.pull(torch.zeros_like(actions))
    torch.testing.assert_close(pulled[:, :3], actions[:, 5:8])
    assert torch.equal(pulled[:, 11:], torch.zeros(3, 5, 2))


@pytest.mark.parametrize("hand_over", HAND_OVERS)
def test_without_a_previous_prediction_nothing_changes(
    policy: DiffusionPolicy, observations: Tensor, hand_over: str
) -> None:
    plain = SamplerConfig("sequential", "ddim", 4)
    sampled = policy.with_sampler(replace(plain, hand_over=hand_over))
    expected = policy.with_sampler(plain).predict(observations, noise=noise()).actions
    assert torch.equal(sampled.predict(observations, noise=noise()).actions, expected)
    late = sampled.predict(
        observations, noise=noise(), previous=before(policy, observations), executed=16, delay=3
    )
    assert torch.equal(late.actions, expected)


@pytest.mark.parametrize("hand_over", ["blend", "inpaint"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "unipc"])
def test_what_will_have_been_executed_is_kept(
    policy: DiffusionPolicy, observations: Tensor, hand_over: str, solver: str
) -> None:
    previous = before(policy, observations)
    sampled = policy.with_sampler(SamplerConfig("sequential", solver, 4, hand_over=hand_over))
    chunk = sampled.predict(observations, noise=noise(), previous=previous, executed=5, delay=3).chunk
    torch.testing.assert_close(chunk[:, :3], previous.actions[:, 6:9], atol=1e-2, rtol=0)  # px
    carried = policy.with_sampler(SamplerConfig("sequential", solver, 4, hand_over="carry"))
    unpulled = carried.predict(observations, noise=noise(), previous=previous, executed=5, delay=3).chunk
    jump, free = ((each[:, 3:] - previous.actions[:, 9:14]).norm(dim=-1).mean() for each in (chunk, unpulled))
    assert jump < free


def test_carried_noise_is_the_previous_one_moved_on(policy: DiffusionPolicy, observations: Tensor) -> None:
    previous = before(policy, observations)
    carry, replace_it = (
        policy.with_sampler(SamplerConfig("sequential", "ddim", 4, hand_over=name))
        for name in ("carry", "replace")
    )
    found = carry.predict(observations, noise=noise(), previous=previous, executed=5)
    moved = torch.cat((noise(1)[:, 5:], noise()[:, -5:]), 1)
    assert torch.equal(found.noise, moved)
    assert torch.equal(found.actions, replace_it.predict(observations, noise=moved).actions)


@pytest.mark.parametrize("hand_over", ["inpaint", "guide"])
def test_the_pull_equals_a_loop_over_diffusers_scheduler(
    policy: DiffusionPolicy, observations: Tensor, hand_over: str
) -> None:
    """An oracle without this package's solver, sampler or hand-over: x̂ is changed in the loop of diffusers."""
    previous = before(policy, observations)
    low, high = policy.normalizer.action.minimum, policy.normalizer.action.maximum
    known = 2 * (previous.actions - low) / (high - low) - 1
    known = torch.cat((known[:, 5:], torch.zeros(3, 5, 2)), 1)
    weights = torch.tensor(overlap_weights(16, executed=5, held=3))[:, None]
    scheduler = DDIMScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=False, steps_offset=0
    )
    scheduler.set_timesteps(10)
    condition = (2 * (observations - 10) / 490 - 1).reshape(3, 40)
    x = torch.cat((noise(1)[:, 5:], noise()[:, -5:]), 1)
    for timestep in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[timestep]
        x.requires_grad_()
        epsilon = policy.network(x, timestep.expand(3), condition)
        clean = ((x - (1 - alpha).sqrt() * epsilon) / alpha.sqrt()).clamp(-1, 1)
        if hand_over == "inpaint":
            clean = weights * known + (1 - weights) * clean
        else:  # the published form: half the gradient of the weighted squared error, at most 5 in the flow's scale
            loss = (weights * (known - clean).square()).sum() / 2
            (slope,) = torch.autograd.grad(loss, x)
            clean = (clean - min(5 * (1 - alpha).sqrt(), alpha.rsqrt()) * slope).clamp(-1, 1)
        x, clean = x.detach(), clean.detach()
        epsilon = (x - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        x = scheduler.step(epsilon, timestep, x).prev_sample
    expected = low + (x + 1) / 2 * (high - low)
    sampled = policy.with_sampler(SamplerConfig("sequential", "ddim", 10, hand_over=hand_over))
    found = sampled.predict(observations, noise=noise(), previous=previous, executed=5, delay=2)
    torch.testing.assert_close(found.actions, expected, atol=0.02, rtol=0)  # px


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=12)
@given(
    method=st.sampled_from(["picard", "parasolver", "pcm"]),
    solver=st.sampled_from(["ddim", "dpmpp_2m"]),
    warm_start=st.sampled_from(["none", "actions"]),
    hand_over=st.sampled_from(HAND_OVERS),
    steps=st.integers(1, 6),
    executed=st.integers(1, 15),
    delay=st.integers(0, 6),
)
def test_parallel_methods_converge_to_the_sequential_answer_with_the_same_hand_over(
    policy: DiffusionPolicy,
    make_pcm: Callable[..., PCM],
    random_covariance: Callable[[int, int], Tensor],
    observations: Tensor,
    method: str,
    solver: str,
    warm_start: str,
    hand_over: str,
    steps: int,
    executed: int,
    delay: int,
) -> None:
    policy = replace(policy, covariance=random_covariance(32, 0).float())
    previous = before(policy, observations)
    if method == "pcm":
        policy = policy.with_pcm(make_pcm(policy, "lora"))
    solver = "ddim" if method == "parasolver" else solver
    sequential = policy.with_sampler(SamplerConfig("sequential", solver, steps, hand_over=hand_over))
    parallel = policy.with_sampler(
        SamplerConfig(
            method,
            solver,
            steps,
            hand_over=hand_over,
            parallel=ParallelConfig(warm_start=warm_start),
            pcm=PcmConfig("feature" if method == "pcm" else "auto"),
        )
    )
    expected, found = (
        each.predict(observations, noise=noise(), previous=previous, executed=executed, delay=delay)
        for each in (sequential, parallel)
    )
    assert torch.equal(found.noise, expected.noise)
    torch.testing.assert_close(found.actions, expected.actions, atol=0.05, rtol=0)  # px


def test_guidance_draws_the_chunk_to_what_will_have_been_executed(
    policy: DiffusionPolicy, observations: Tensor
) -> None:
    previous = before(policy, observations)

    def distance(hand_over: str) -> Tensor:
        sampled = policy.with_sampler(SamplerConfig("sequential", "ddim", 10, hand_over=hand_over))
        chunk = sampled.predict(observations, noise=noise(), previous=previous, executed=5, delay=3).chunk
        return (chunk[:, :3] - previous.actions[:, 6:9]).norm(dim=-1).mean()

    assert distance("guide") < 0.8 * distance("carry")


def test_a_solver_without_noise_is_not_guided() -> None:
    with pytest.raises(ValueError, match="hand_over=guide needs a solver of noise, not mip"):
        SamplerConfig("sequential", "mip", 2, hand_over="guide")


def test_a_negative_delay_is_refused(policy: DiffusionPolicy, observations: Tensor) -> None:
    with pytest.raises(ValueError, match="delay must not be negative, got -1"):
        policy.predict(observations, delay=-1)
