from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from training.rollout import run_episodes

SEEDS = [100000, 100001, 100002]


@pytest.fixture
def fast_policy(policy: DiffusionPolicy) -> DiffusionPolicy:
    return policy.with_sampler(SamplerConfig("ddim", 2))


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
    assert rollout.sequential_evaluations == (2,) * 6
    assert rollout.network_evaluations == (3 * 2 + 3 * 1) * 2
    assert len(rollout.call_seconds) == 6
    assert [len(episode.chunk_seconds) for episode in rollout.episodes] == [3, 3, 3]


def test_only_the_first_episodes_are_recorded(fast_policy: DiffusionPolicy) -> None:
    rollout = run_episodes(fast_policy, SEEDS, max_steps=4, record=1, frame_size=64, show_progress=False)
    assert [len(episode.frames) for episode in rollout.episodes] == [5, 0, 0]
    assert rollout.episodes[0].frames[0].shape == (64, 64, 3)
