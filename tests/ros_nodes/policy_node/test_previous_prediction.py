from __future__ import annotations

import pytest
import torch

from policy import DiffusionPolicy, Prediction
from ros_nodes.policy_node.previous_prediction import PreviousPrediction

PERIOD = 100_000_000


@pytest.fixture
def prediction(policy: DiffusionPolicy, observations: torch.Tensor) -> Prediction:
    return policy.predict(observations[:1])


def test_there_is_none_before_the_first_and_after_forgetting(prediction: Prediction) -> None:
    previous = PreviousPrediction(PERIOD)
    assert previous.at(8 * PERIOD) == (None, None)
    previous.remember(prediction, 0)
    previous.forget()
    assert previous.at(8 * PERIOD) == (None, None)


@pytest.mark.parametrize(("stamp", "executed"), [(8.0, 8), (6.0, 6), (6.4, 6), (40.0, 40)])
def test_executed_periods_are_counted_from_its_observation(
    prediction: Prediction, stamp: float, executed: int
) -> None:
    previous = PreviousPrediction(PERIOD)
    previous.remember(prediction, 5 * PERIOD)
    assert previous.at(round((5 + stamp) * PERIOD)) == (prediction, executed)


@pytest.mark.parametrize("stamp", [5.0, 5.3, 4.0])
def test_where_no_period_has_passed_nothing_is_continued(prediction: Prediction, stamp: float) -> None:
    previous = PreviousPrediction(PERIOD)
    previous.remember(prediction, 5 * PERIOD)
    assert previous.at(round(stamp * PERIOD)) == (None, None)
