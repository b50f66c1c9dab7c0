from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, Prediction, SamplerConfig, StopConfig
from policy.denoiser import Denoise, make_denoise
from training.pcm.chunk_before import ChunkBefore, ChunkBeforeConfig, chunk_before_in_demonstrations
from training.pcm.picard_trajectories import draw_samples, trajectories_after

T = 4


@pytest.fixture
def sampled(policy: DiffusionPolicy) -> DiffusionPolicy:
    policy = replace(policy, covariance=0.1 * torch.eye(32))
    return policy.with_sampler(
        SamplerConfig(
            "picard",
            "dpmpp_2m",
            T,
            parallel=ParallelConfig(warm_start="actions"),
            picard=PicardConfig("preconditioned", "gaussian"),
        )
    )


@pytest.fixture
def conditions() -> Tensor:
    """Of two episodes of 6 and 20 control steps."""
    return torch.rand(26, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


POSITION = torch.cat((torch.arange(6), torch.arange(20)))


@pytest.mark.parametrize("warm_start", ["actions", "actions_and_noise"])
def test_trajectories_begin_where_the_sampler_does_and_end_at_its_answer(
    sampled: DiffusionPolicy, conditions: Tensor, warm_start: str
) -> None:
    sampler = replace(sampled.sampler, parallel=ParallelConfig(warm_start=warm_start), stop=StopConfig(1))
    seen: list[Tensor] = []

    def bind(*arguments: object) -> Denoise:
        denoise = make_denoise(*arguments)  # type: ignore[arg-type]

        def watched(states: Tensor, steps: slice) -> Tensor:
            seen.append(states)
            return denoise(states, steps)

        return watched

    served = replace(sampled, bind_network=bind).with_sampler(sampler)
    exact = sampled.with_sampler(SamplerConfig("sequential", "dpmpp_2m", T))
    rows, noise = draw_samples(served, len(conditions), range(4), seed=0)
    drawn = torch.randn(2, 4, 16, 2, generator=torch.Generator().manual_seed(1))
    before = ChunkBefore(torch.tensor([8, 0, 1, 3]), drawn[0].clamp(-1, 1), drawn[1])
    found = trajectories_after(served, conditions[rows], noise, before=before, iterations=2)
    states, solution = torch.from_numpy(found.states), torch.from_numpy(found.solution)
    assert found.executed.tolist() == [8, 0, 1, 3]

    normalizer = sampled.normalizer
    for sample, executed in enumerate(before.executed.tolist()):
        one = slice(sample, sample + 1)
        actions = normalizer.action.unnormalize(before.actions[one])
        previous = Prediction(actions, actions, 0, 0, torch.zeros(1), before.noise[one])
        observations = normalizer.observation.unnormalize(conditions[rows[one]].view(1, 2, 20))
        seen.clear()
        prediction = served.predict(
            observations,
            noise=noise[one, 0],
            previous=previous if executed else None,
            executed=executed or None,
        )
        begun = seen[0] if executed else seen[1][:, 1:]  # a cold start makes a call, and state 1 is exact
        torch.testing.assert_close(states[one, 0, 0 if executed else 2 : T], begun, atol=1e-5, rtol=0)
        assert torch.equal(states[one, 0, 0], prediction.noise)
        first = normalizer.action.normalize(prediction.actions)
        torch.testing.assert_close(states[one, 1, -1].clamp(-1, 1), first, atol=1e-5, rtol=0)
        answer = normalizer.action.normalize(exact.predict(observations, noise=prediction.noise).actions)
        torch.testing.assert_close(solution[one, -1], answer, atol=1e-5, rtol=0)


def test_the_chunk_before_is_the_bases_answer_earlier_in_the_same_episode(
    sampled: DiffusionPolicy, conditions: Tensor
) -> None:
    config = ChunkBeforeConfig(cold_share=0.2, disturbed_share=0.0)
    find = chunk_before_in_demonstrations(sampled, conditions, POSITION, config=config, seed=3)
    rows = torch.arange(26).repeat(8)
    samples = range(len(rows))
    before = find(rows, samples)
    executed = before.executed
    assert set(executed.tolist()) == set(range(9))
    assert (executed <= POSITION[rows]).all()  # never before the episode
    assert 0.1 < (executed[POSITION[rows] >= 8] == 0).float().mean() < 0.35
    exact = sampled.with_sampler(SamplerConfig("sequential", "dpmpp_2m", T))
    observations = sampled.normalizer.observation.unnormalize(conditions[rows - executed].view(-1, 2, 20))
    answer = exact.predict(observations, noise=before.noise).actions
    normalized = sampled.normalizer.action.normalize(answer)
    torch.testing.assert_close(before.actions, normalized, atol=1e-5, rtol=0)
    alone = find(rows[7:8], [7])  # whoever else is in the batch
    assert (alone.executed, alone.noise[0].tolist()) == (executed[7], before.noise[7].tolist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cold_share": 1.5}, "cold_share must be in 0 … 1, got 1.5"),
        ({"disturbed_share": -0.1}, "disturbed_share must be in 0 … 1"),
        ({"most_executed": 0}, "most_executed must be at least 1, got 0"),
        ({"disturbance": -1.0}, "disturbance must not be negative, got -1.0"),
    ],
)
def test_impossible_values_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChunkBeforeConfig(**options)  # type: ignore[arg-type]


def test_a_chunk_before_whose_horizon_is_over_is_refused(
    sampled: DiffusionPolicy, conditions: Tensor
) -> None:
    with pytest.raises(ValueError, match=r"before\.most_executed must be below the horizon 16, got 16"):
        chunk_before_in_demonstrations(
            sampled, conditions, POSITION, config=ChunkBeforeConfig(most_executed=16), seed=0
        )
