from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy import PolicyConfig
from training.data.demonstrations import Demonstrations
from training.evaluation.offline.chunks import demonstrated_chunks
from training.evaluation.offline.errors import action_errors, share_of_range, varied_range

Recorded = Callable[..., Demonstrations]


def test_each_dimension_has_its_own_error_and_each_episode_counts_as_much(recorded: Recorded) -> None:
    chunks = demonstrated_chunks(recorded(2, 30), [0, 1], PolicyConfig())
    predicted = chunks.actions.astype(np.float64)
    predicted[chunks.episodes == 0] += [1.0, 0.0, 0.0]
    predicted[chunks.episodes == 1] += [-3.0, 0.5, 0.0]
    errors = action_errors(predicted[None], chunks)
    np.testing.assert_allclose(errors.mean_absolute, [[[1, 0, 0], [3, 0.5, 0]]])
    np.testing.assert_allclose(errors.rmse, [np.sqrt(5), 0.5 / np.sqrt(2), 0])
    np.testing.assert_allclose(errors.p95, [3, 0.5, 0])  # 30 of 32 steps are the second episode's


def test_what_is_predicted_beyond_an_episode_counts_for_nothing(recorded: Recorded) -> None:
    chunks = demonstrated_chunks(recorded(11), [0], PolicyConfig())
    predicted = np.where(chunks.is_demonstrated[..., None], chunks.actions, 1e6)
    errors = action_errors(predicted[None], chunks)
    assert not errors.mean_absolute.any()
    assert not errors.rmse.any()
    assert not errors.p95.any()


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=3), seeds=st.integers(1, 3))
def test_a_mean_absolute_error_is_at_most_its_root_mean_square(
    recorded: Recorded, lengths: list[int], seeds: int
) -> None:
    chunks = demonstrated_chunks(recorded(*lengths), range(len(lengths)), PolicyConfig())
    predicted = np.random.default_rng(1).normal(size=(seeds, *chunks.actions.shape))
    errors = action_errors(predicted, chunks)
    largest = np.abs(predicted - chunks.actions)[:, chunks.is_demonstrated].max((0, 1))
    assert errors.mean_absolute.shape == (seeds, len(lengths), 3)
    assert (errors.mean_absolute.mean((0, 1)) <= errors.rmse + 1e-12).all()
    assert (errors.rmse <= largest + 1e-12).all()
    assert (errors.p95 <= largest).all()


def test_dimensions_of_any_unit_are_compared_by_their_range() -> None:
    ranges = varied_range(np.array([[0, 5, 100], [2, 5, 50]], np.float32))
    np.testing.assert_array_equal(ranges, [2, np.nan, 50])
    assert share_of_range(np.array([1.0, 9.0, 5.0]), ranges) == pytest.approx(0.3)  # of 1/2 and 5/50
    assert np.isnan(share_of_range(np.array([1.0]), np.array([np.nan])))
