from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import DiffusionPolicy, PolicyConfig, SamplerConfig
from training.data.demonstrations import Demonstrations
from training.evaluation.offline import chunks as module
from training.evaluation.offline.chunks import demonstrated_chunks, sampled_chunks

Recorded = Callable[..., Demonstrations]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), data=st.data())
def test_every_step_of_the_episodes_is_judged_once(
    recorded: Recorded, lengths: list[int], data: st.DataObject
) -> None:
    demonstrations = recorded(*lengths)
    episodes = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, unique=True))
    action_steps = data.draw(st.integers(1, 15))
    chunks = demonstrated_chunks(demonstrations, episodes, PolicyConfig(action_steps=action_steps))
    starts = np.concatenate([[0], demonstrations.episode_ends])
    expected = [demonstrations.actions[starts[episode] : starts[episode + 1]] for episode in sorted(episodes)]
    np.testing.assert_array_equal(chunks.actions[chunks.is_demonstrated], np.concatenate(expected))


def test_a_chunk_begins_at_the_newest_observation_and_knows_the_action_before(recorded: Recorded) -> None:
    demonstrations = recorded(5, 20)
    chunks = demonstrated_chunks(demonstrations, [1], PolicyConfig())
    assert chunks.steps.tolist() == [0, 8, 16]
    steps = [[5, 5], [12, 13], [20, 21]]  # before the episode its first observation is repeated
    np.testing.assert_array_equal(chunks.observations, demonstrations.observations[steps])
    np.testing.assert_array_equal(chunks.actions[:, 0], demonstrations.actions[[5, 13, 21]])
    assert np.isnan(chunks.last_actions[0]).all()
    np.testing.assert_array_equal(chunks.last_actions[1:], demonstrations.actions[[12, 20]])


def test_the_sample_of_a_chunk_does_not_depend_on_what_else_is_judged(
    recorded: Recorded, arm_policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = arm_policy.with_sampler(SamplerConfig("sequential", "ddpm", 3))  # draws noise at every step
    demonstrations = recorded(9, 30, 17)
    several = demonstrated_chunks(demonstrations, [0, 1, 2], policy.config)
    alone = demonstrated_chunks(demonstrations, [1], policy.config)
    expected = sampled_chunks(policy, several, 7)[several.episodes == 1]
    np.testing.assert_allclose(sampled_chunks(policy, alone, 7), expected, atol=1e-6)
    monkeypatch.setattr(module, "CHUNKS_OF_A_CALL", 3)
    np.testing.assert_allclose(sampled_chunks(policy, alone, 7), expected, atol=1e-6)
    assert np.abs(sampled_chunks(policy, alone, 8) - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], "at least one episode is needed to judge a policy"),
        ([3], "there is no episode 3: the demonstrations have 2"),
        ([1, 1], "episodes must name each episode once"),
    ],
)
def test_episodes_that_are_not_there_are_refused(
    recorded: Recorded, arm_policy: DiffusionPolicy, episodes: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        demonstrated_chunks(recorded(4, 4), episodes, replace(arm_policy.config, action_steps=4))
