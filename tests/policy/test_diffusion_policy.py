from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, PolicyConfig, SamplerConfig, StopConfig


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_chunk_equals_a_loop_over_diffusers_scheduler(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    """The whole way, px to px, without this package's normaliser, solver or sampler."""
    scheduler = DDIMScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", clip_sample=True, steps_offset=0
    )
    scheduler.set_timesteps(10)
    noise = torch.randn((3, 16, 2), generator=generator(5))
    condition = (2 * (observations - 10) / 490 - 1).reshape(3, 40)
    x = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            epsilon = policy.network(x, timestep.expand(3), condition)
            x = scheduler.step(epsilon, timestep, x, use_clipped_model_output=True).prev_sample
    low, high = torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])
    expected = (low + (x + 1) / 2 * (high - low))[:, 1:9]
    chunk = policy.with_sampler(SamplerConfig("sequential", "ddim", 10)).predict_chunk(
        observations, noise=noise
    )
    torch.testing.assert_close(chunk, expected, atol=0.02, rtol=0)  # px; 1e-4 of the normalised range


@pytest.mark.parametrize(
    "sampler", [SamplerConfig("sequential", "ddim", 4), SamplerConfig("sequential", "ddpm", 10)]
)
def test_chunk_is_finite_and_inside_the_training_range(
    policy: DiffusionPolicy, observations: torch.Tensor, sampler: SamplerConfig
) -> None:
    chunk = policy.with_sampler(sampler).predict_chunk(observations * 50)  # far outside the training data
    assert chunk.shape == (3, 8, 2)
    assert (chunk >= policy.normalizer.action.minimum - 1e-3).all()
    assert (chunk <= policy.normalizer.action.maximum + 1e-3).all()


@pytest.mark.parametrize(
    "sampler", [SamplerConfig("sequential", "ddim", 4), SamplerConfig("sequential", "ddpm", 4)]
)
def test_same_seed_gives_the_same_chunk(
    policy: DiffusionPolicy, observations: torch.Tensor, sampler: SamplerConfig
) -> None:
    sampled = policy.with_sampler(sampler)
    first, again, other = (sampled.predict_chunk(observations, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "sampler", [SamplerConfig("sequential", "ddim", 4), SamplerConfig("sequential", "ddpm", 4)]
)
def test_with_a_generator_each_a_sample_does_not_depend_on_its_batch(
    policy: DiffusionPolicy, observations: torch.Tensor, sampler: SamplerConfig
) -> None:
    sampled = policy.with_sampler(sampler)
    batch = sampled.predict_chunk(observations, generator=[generator(s) for s in (4, 5, 6)])
    alone = sampled.predict_chunk(observations[1:2], generator=generator(5))
    torch.testing.assert_close(batch[1:2], alone, atol=1e-2, rtol=0)  # px


def test_float64_and_float32_agree(policy: DiffusionPolicy, observations: torch.Tensor) -> None:
    noise = torch.randn((3, 16, 2), generator=generator(5))
    chunk = policy.predict_chunk(observations, noise=noise)
    policy.network.double()
    exact = DiffusionPolicy(policy.network, policy.task, policy.config, policy.normalizer).predict_chunk(
        observations, noise=noise
    )
    assert exact.dtype == torch.float64
    torch.testing.assert_close(chunk.double(), exact, atol=0.025, rtol=0)  # px; 1e-4 of the normalised range


@pytest.mark.parametrize(
    ("sampler", "depth"),
    [
        (SamplerConfig("sequential", "ddim", 6), 6),
        (SamplerConfig("picard", "ddim", 6, stop=StopConfig(3), picard=PicardConfig("drift")), 3),
        (SamplerConfig("picard", "ddim", 6, stop=StopConfig(3), picard=PicardConfig("drift", "gaussian")), 4),
        (
            SamplerConfig(
                "picard", "ddim", 6, stop=StopConfig(100), picard=PicardConfig("drift", "gaussian")
            ),
            6,
        ),
    ],
)
def test_prediction_says_what_it_took(
    policy: DiffusionPolicy, observations: torch.Tensor, sampler: SamplerConfig, depth: int
) -> None:
    calls: list[int] = []
    policy.network.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    sampled = replace(policy, covariance=0.1 * torch.eye(32), sampler=sampler)
    prediction = sampled.predict(observations, generator=generator(0))
    assert prediction.depth == depth == len(calls)
    assert prediction.network_evaluations == sum(calls) >= 3 * depth
    assert torch.equal(prediction.chunk, prediction.actions[:, 1:9])
    assert (prediction.residual > 0).all() == (sampler.method == "picard")


def test_wrong_input_is_named(policy: DiffusionPolicy, observations: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"observations must have shape \(B, 2, 20\), got \(3, 20\)"):
        policy.predict_chunk(observations[:, 0])
    with pytest.raises(ValueError, match=r"noise must have shape \(B, 16, 2\), got \(3, 8, 2\)"):
        policy.predict_chunk(observations, noise=torch.zeros(3, 8, 2))
    with pytest.raises(ValueError, match="noise has batch size 2, observations have 3"):
        policy.predict_chunk(observations, noise=torch.zeros(2, 16, 2))
    with pytest.raises(ValueError, match="got 2 generators for 3 observations"):
        policy.predict_chunk(observations, generator=[generator(0), generator(1)])
    observations[1, 0, 7] = float("nan")
    with pytest.raises(ValueError, match=r"observations\[1, 0, 7\] is nan, must be finite"):
        policy.predict_chunk(observations)


def test_more_steps_than_training_timesteps_are_refused(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="steps must be in 1 … 100"):
        policy.with_sampler(SamplerConfig("sequential", "ddim", 101)).predict_chunk(observations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 18}, "horizon must be a multiple of 4"),
        ({"action_steps": 16}, "do not fit into a horizon of 16"),
        ({"observation_steps": 0}, "observation_steps must be at least 1, got 0"),
        ({"num_train_timesteps": 0}, "num_train_timesteps must be at least 1, got 0"),
    ],
)
def test_impossible_shapes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyConfig(**arguments)


def test_a_warm_start_continues_where_time_already_is(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(2))
    sampler = SamplerConfig(
        "picard",
        "ddim",
        10,
        stop=StopConfig(1),
        parallel=ParallelConfig(warm_start="actions_and_noise"),
        picard=PicardConfig("drift"),
    )
    warm = policy.with_sampler(sampler)
    previous = warm.predict(observations, noise=noise)
    later = warm.predict(observations, noise=torch.zeros_like(noise), previous=previous, executed=3)
    assert torch.equal(later.noise[:, :13], noise[:, 3:])
    assert not later.noise[:, 13:].any()
    usual = warm.predict(observations, noise=noise, previous=previous)
    assert torch.equal(
        usual.actions, warm.predict(observations, noise=noise, previous=previous, executed=8).actions
    )
    assert not torch.allclose(
        usual.actions, warm.predict(observations, noise=noise, previous=previous, executed=7).actions
    )


def test_nothing_is_left_of_a_prediction_whose_horizon_is_over(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(2))
    warm = policy.with_sampler(
        SamplerConfig(
            "picard",
            "ddim",
            10,
            stop=StopConfig(1),
            parallel=ParallelConfig(warm_start="actions"),
            picard=PicardConfig("drift", "repeated"),
        )
    )
    previous = warm.predict(observations, noise=noise)
    cold = warm.predict(observations, noise=noise)
    assert torch.equal(
        warm.predict(observations, noise=noise, previous=previous, executed=16).actions, cold.actions
    )
    with pytest.raises(ValueError, match="executed must be at least 1, got 0"):
        warm.predict(observations, noise=noise, previous=previous, executed=0)
