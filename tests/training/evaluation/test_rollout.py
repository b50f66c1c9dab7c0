from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, SamplerConfig, StopConfig
from training.evaluation.latency import LatencyConfig
from training.evaluation.rollout import run_episodes

SEEDS = [100000, 100001, 100002]


@pytest.fixture
def fast_policy(policy: DiffusionPolicy) -> DiffusionPolicy:
    return policy.with_sampler(SamplerConfig("sequential", "ddim", 2))


def test_rewards_equal_those_of_a_plain_loop(fast_policy: DiffusionPolicy) -> None:
    rollout = run_episodes(fast_policy, SEEDS[:1], max_steps=20, batch_size=1, show_progress=False)

    env = gymnasium.make("pusht_env/PushT-v0", max_episode_steps=20)
    observation, _ = env.reset(seed=SEEDS[0])
    before, generator, rewards, ended = observation, torch.Generator().manual_seed(SEEDS[0]), [], False
    while not ended:
        history = torch.tensor(np.array([[before, observation]]), dtype=torch.float32)
        for action in fast_policy.predict_chunk(history, generator=generator)[0]:
            before = observation
            observation, reward, terminated, truncated, _ = env.step(action.double().numpy())
            rewards.append(reward)
            ended = terminated or truncated
            if ended:
                break
    assert rollout.episodes[0].rewards.tolist() == rewards
    assert rollout.episodes[0].steps == 20


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batch_size_changes_rounding_only(fast_policy: DiffusionPolicy, batch_size: int) -> None:
    together = run_episodes(fast_policy, SEEDS, max_steps=16, show_progress=False)
    apart = run_episodes(fast_policy, SEEDS, max_steps=16, batch_size=batch_size, show_progress=False)
    assert [episode.seed for episode in apart.episodes] == SEEDS
    for one, other in zip(together.episodes, apart.episodes, strict=True):
        np.testing.assert_allclose(one.rewards, other.rewards, atol=1e-3)


def test_same_noise_seed_repeats_and_another_differs(fast_policy: DiffusionPolicy) -> None:
    def frames(noise_seed: int) -> np.ndarray:
        rollout = run_episodes(
            fast_policy, SEEDS[:1], max_steps=8, noise_seed=noise_seed, record=1, show_progress=False
        )
        return np.stack(rollout.episodes[0].frames)

    assert np.array_equal(frames(0), frames(0))
    assert not np.array_equal(frames(0), frames(1))


def test_costs_are_counted_at_the_network(fast_policy: DiffusionPolicy) -> None:
    rollout = run_episodes(fast_policy, SEEDS, max_steps=20, batch_size=2, show_progress=False)
    # Two episodes, then the third one alone, 20 steps each in chunks of 8, two solver steps per chunk.
    assert rollout.depths == (2,) * 6
    assert rollout.network_evaluations == (3 * 2 + 3 * 1) * 2
    assert len(rollout.call_seconds) == 6
    assert [len(episode.chunk_seconds) for episode in rollout.episodes] == [3, 3, 3]


def test_only_the_first_episodes_are_recorded(fast_policy: DiffusionPolicy) -> None:
    rollout = run_episodes(fast_policy, SEEDS, max_steps=4, record=1, frame_size=64, show_progress=False)
    assert [len(episode.frames) for episode in rollout.episodes] == [5, 0, 0]
    assert rollout.episodes[0].frames[0].shape == (64, 64, 3)


def rewards(policy: DiffusionPolicy, latency: LatencyConfig, **options: Any) -> list[list[float]]:
    rollout = run_episodes(policy, SEEDS, 24, latency=latency, show_progress=False, **options)
    return [episode.rewards.tolist() for episode in rollout.episodes]


def frames(policy: DiffusionPolicy, latency: LatencyConfig) -> np.ndarray:
    rollout = run_episodes(
        policy, SEEDS[:1], 24, record=1, frame_size=64, latency=latency, show_progress=False
    )
    return np.stack(rollout.episodes[0].frames)


def test_no_latency_is_a_fixed_one_of_0(fast_policy: DiffusionPolicy) -> None:
    assert rewards(fast_policy, LatencyConfig()) == rewards(fast_policy, LatencyConfig("fixed", ms=0))
    assert np.array_equal(
        frames(fast_policy, LatencyConfig()), frames(fast_policy, LatencyConfig("fixed", ms=0))
    )


def test_fixed_latency_repeats_and_changes_what_happens(fast_policy: DiffusionPolicy) -> None:
    late = LatencyConfig("fixed", ms=320)
    assert rewards(fast_policy, late) == rewards(fast_policy, late)
    assert np.array_equal(frames(fast_policy, late), frames(fast_policy, late))
    assert not np.array_equal(frames(fast_policy, late), frames(fast_policy, LatencyConfig()))


def test_episodes_that_join_late_have_their_own_time(fast_policy: DiffusionPolicy) -> None:
    late = LatencyConfig("fixed", ms=320)
    for one, other in zip(rewards(fast_policy, late), rewards(fast_policy, late, batch_size=2), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_measured_latency_is_that_of_each_policy_call(fast_policy: DiffusionPolicy) -> None:
    rollout = run_episodes(
        fast_policy, SEEDS[:2], 24, latency=LatencyConfig("measured", margin_ms=50), show_progress=False
    )
    for episode in rollout.episodes:
        for chunk, seconds in zip(episode.chunks, episode.chunk_seconds, strict=False):
            assert chunk.inference_ms == pytest.approx(1000 * seconds, abs=1e-5)
            assert chunk.skipped_points >= 1
    assert len(rollout.call_seconds) == sum(len(episode.chunk_seconds) for episode in rollout.episodes)


def test_measured_latency_needs_one_episode_at_a_time(fast_policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="latency=measured needs batch_size=1, got 2"):
        run_episodes(fast_policy, SEEDS, batch_size=2, latency=LatencyConfig("measured"))


def warm(policy: DiffusionPolicy, warm_start: str) -> DiffusionPolicy:
    sampler = SamplerConfig(
        "picard",
        "ddim",
        6,
        stop=StopConfig(2),
        parallel=ParallelConfig(warm_start=warm_start),
        picard=PicardConfig("drift", "repeated"),
    )
    return policy.with_sampler(sampler)


@pytest.mark.parametrize("latency", [LatencyConfig(), LatencyConfig("fixed", ms=320)])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_each_episode_starts_warm_from_its_own_last_chunk(
    policy: DiffusionPolicy, batch_size: int | None, latency: LatencyConfig
) -> None:
    together = jumps(warm(policy, "actions_and_noise"), latency, batch_size=batch_size)
    for episode, seed in zip(together, SEEDS, strict=True):
        (alone,) = jumps(warm(policy, "actions_and_noise"), latency, seeds=[seed])
        np.testing.assert_allclose(episode, alone, rtol=1e-3)
    assert together != jumps(warm(policy, "none"), latency)
    assert together != jumps(warm(policy, "actions"), latency)


def test_episodes_that_join_start_cold(policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where so little is success, the first episode ends with its first step, and the third takes its place.
    monkeypatch.setattr("pusht_env.env.SUCCESS_COVERAGE", 0.1)
    seeds = [100001, 100000, 100002]
    together = jumps(warm(policy, "actions"), LatencyConfig(), seeds, batch_size=2)
    assert [len(episode) for episode in together] == [0, 2, 2]
    for episode, seed in zip(together, seeds, strict=True):
        (alone,) = jumps(warm(policy, "actions"), LatencyConfig(), [seed])
        np.testing.assert_allclose(episode, alone, rtol=1e-3)


def test_a_late_chunk_starts_warm_from_where_time_is(policy: DiffusionPolicy) -> None:
    late = warm(policy, "actions_and_noise")
    ((jump, *_),) = jumps(late, LatencyConfig("fixed", ms=320), SEEDS[:1])

    env = gymnasium.make("pusht_env/PushT-v0")
    observation, info = env.reset(seed=SEEDS[0])
    history, generator = [observation, observation], torch.Generator().manual_seed(SEEDS[0])
    first = late.predict(torch.tensor(np.array([history]), dtype=torch.float32), generator=generator)
    # The first chunk is there for step 4, and from then on the second one is computed.
    history += [env.step(info["pusher_position"])[0] for _ in range(4)]
    newest = torch.tensor(np.array([history[-2:]]), dtype=torch.float32)
    second = late.predict(newest, generator=generator, previous=first, executed=4)
    distances = (second.actions[0, 1:9] - first.actions[0, 5:13]).norm(dim=-1)
    assert jump == pytest.approx(distances.mean().item(), rel=1e-4)


def jumps(
    policy: DiffusionPolicy, latency: LatencyConfig, seeds: list[int] = SEEDS, batch_size: int | None = None
) -> list[list[float]]:
    rollout = run_episodes(policy, seeds, 24, batch_size=batch_size, latency=latency, show_progress=False)
    return [[chunk.jump for chunk in episode.chunks[1:]] for episode in rollout.episodes]


def test_converged_chunks_are_those_of_a_cold_start(policy: DiffusionPolicy) -> None:
    def converged(warm_start: str) -> list[list[float]]:
        sampler = SamplerConfig(
            "picard",
            "ddim",
            4,
            parallel=ParallelConfig(warm_start=warm_start),
            picard=PicardConfig("drift", "repeated"),
        )
        return jumps(policy.with_sampler(sampler), LatencyConfig())

    np.testing.assert_allclose(converged("actions"), converged("none"), rtol=1e-3)


def test_calls_that_a_deadline_cut_are_counted(policy: DiffusionPolicy) -> None:
    sampler = SamplerConfig("picard", "ddim", 8, picard=PicardConfig("drift", "repeated"))
    for deadline_ms, cut in ((1e6, False), (1e-3, True)):
        hurried = policy.with_sampler(replace(sampler, stop=StopConfig(deadline_ms=deadline_ms)))
        rollout = run_episodes(hurried, SEEDS[:1], 16, show_progress=False)
        assert rollout.cuts == (cut, cut)
        assert (max(rollout.depths) < 8) is cut
