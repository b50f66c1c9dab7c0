from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policy import PolicyConfig
from training.data.demonstrations import Demonstrations, load_demonstrations
from training.data.task_file import load_task
from training.data.windows import build_windows, policy_windows, split_episodes


def demonstrations_of_lengths(lengths: list[int]) -> Demonstrations:
    steps = np.arange(sum(lengths), dtype=np.float32)
    return Demonstrations(
        task=load_task("pusht").task,
        observations=steps[:, None] + np.linspace(0, 0.5, 20, dtype=np.float32),
        actions=-steps[:, None] * np.array([1, 2], np.float32),
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        sha256="",
    )


def reference_windows(
    demonstrations: Demonstrations,
    episodes: list[int],
    horizon: int,
    observation_steps: int,
    action_steps: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Diffusion Policy's windows the slow way: pad each episode by its edges, then slide."""
    boundaries = [0, *demonstrations.episode_ends]
    padding = ((observation_steps - 1, action_steps - 1), (0, 0))
    observations, actions = [], []
    for episode in episodes:
        steps = slice(boundaries[episode], boundaries[episode + 1])
        padded_observations = np.pad(demonstrations.observations[steps], padding, mode="edge")
        padded_actions = np.pad(demonstrations.actions[steps], padding, mode="edge")
        for first in range(len(padded_actions) - horizon + 1):
            observations.append(padded_observations[first : first + observation_steps])
            actions.append(padded_actions[first : first + horizon])
    return observations, actions


@st.composite
def window_requests(draw: st.DrawFn) -> tuple[list[int], list[int], int, int, int]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    episodes = draw(st.lists(st.integers(0, len(lengths) - 1), unique=True))
    horizon = draw(st.integers(1, 20))
    return lengths, episodes, horizon, draw(st.integers(1, horizon)), draw(st.integers(1, horizon))


@given(window_requests())
def test_windows_equal_the_slow_reference(request: tuple[list[int], list[int], int, int, int]) -> None:
    lengths, episodes, horizon, observation_steps, action_steps = request
    demonstrations = demonstrations_of_lengths(lengths)
    windows = build_windows(
        demonstrations,
        episodes,
        horizon=horizon,
        observation_steps=observation_steps,
        action_steps=action_steps,
    )
    observations, actions = reference_windows(
        demonstrations, episodes, horizon, observation_steps, action_steps
    )
    assert windows.observations.dtype == windows.actions.dtype == torch.float32
    assert windows.observations.shape == (len(observations), observation_steps, 20)
    assert windows.actions.shape == (len(actions), horizon, 2)
    if actions:
        np.testing.assert_array_equal(windows.observations.numpy(), np.stack(observations))
        np.testing.assert_array_equal(windows.actions.numpy(), np.stack(actions))


def test_window_edges_worked_out_by_hand() -> None:
    windows = build_windows(demonstrations_of_lengths([5, 9]), [1])
    # 9 steps, one repeated before and seven after, are 17 steps: two windows of 16.
    first, second = (-windows.actions[:, :, 0]).tolist()
    assert first == [5, 5, 6, 7, 8, 9, 10, 11, 12, 13, 13, 13, 13, 13, 13, 13]
    assert second == [5, 6, 7, 8, 9, 10, 11, 12, 13, 13, 13, 13, 13, 13, 13, 13]
    assert windows.observations[:, :, 0].tolist() == [[5, 5], [5, 6]]


def test_windows_do_not_share_memory_with_the_demonstrations() -> None:
    demonstrations = demonstrations_of_lengths([20])
    build_windows(demonstrations, [0]).actions.fill_(7)
    assert not (demonstrations.actions == 7).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": [0, 2]}, "there is no episode 2: the demonstrations have 2"),
        ({"episodes": [-1]}, "there is no episode -1"),
        ({"episodes": [1, 0, 1]}, "each episode once"),
        ({"episodes": [0.5]}, "list of integers, got float64"),
        ({"episodes": np.array([True, False])}, "list of integers, got bool"),
        ({"observation_steps": 0}, r"observation_steps must be 1 to horizon \(16\), got 0"),
        ({"action_steps": 17}, r"action_steps must be 1 to horizon \(16\), got 17"),
    ],
)
def test_impossible_windows_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_windows(demonstrations_of_lengths([20, 20]), **{"episodes": [0], **arguments})  # type: ignore[arg-type]


@given(st.integers(1, 300), st.data(), st.integers(0, 2**32))
def test_split_covers_every_episode_once_and_repeats_by_seed(
    num_episodes: int, data: st.DataObject, seed: int
) -> None:
    held_out = data.draw(st.integers(0, num_episodes - 1))
    training_episodes, held_out_episodes = split_episodes(num_episodes, held_out, seed)
    assert len(held_out_episodes) == held_out
    assert sorted([*training_episodes, *held_out_episodes]) == list(range(num_episodes))
    assert (np.diff(training_episodes) > 0).all()
    assert (np.diff(held_out_episodes) > 0).all()
    again = split_episodes(num_episodes, held_out, seed)
    assert all(map(np.array_equal, (training_episodes, held_out_episodes), again))


def test_split_depends_on_the_seed() -> None:
    assert len({tuple(split_episodes(206, 20, seed)[1]) for seed in range(5)}) == 5


@pytest.mark.parametrize("held_out", [-1, 206])
def test_impossible_splits_are_refused(held_out: int) -> None:
    with pytest.raises(ValueError, match=f"held_out must be 0 to 205 of 206 episodes, got {held_out}"):
        split_episodes(206, held_out, seed=0)


def test_windows_of_the_published_demonstrations(demonstrations_path: Path) -> None:
    demonstrations = load_demonstrations(demonstrations_path, task="pusht")
    windows = policy_windows(demonstrations, np.arange(206), PolicyConfig())
    # No episode is shorter than a window: with padding 1 and 7, one of L steps has L + 8 - 15 windows.
    assert len(windows.actions) == 25650 + 206 * (8 - 15)
    observations, actions = reference_windows(demonstrations, list(range(206)), 16, 2, 8)
    np.testing.assert_array_equal(windows.observations.numpy(), np.stack(observations))
    np.testing.assert_array_equal(windows.actions.numpy(), np.stack(actions))
