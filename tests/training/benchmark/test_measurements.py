from __future__ import annotations

import numpy as np

from training.benchmark.measurements import reward_cells, rewards_of
from training.evaluation.episode import Episode


def episode(best: float, steps: int, *, success: bool) -> Episode:
    return Episode(0, np.linspace(0, best, steps), success, ())


def test_success_counts_from_the_control_step_on_that_ends_an_episode() -> None:
    early, late, never = (
        episode(1, 150, success=True),
        episode(1, 250, success=True),
        episode(0.9, 300, success=False),
    )
    row = rewards_of([early, late, never])
    assert row["success_200"] == [True, False, False]
    assert row["success_300"] == [True, True, False]
    assert row["max_reward_300"] == [1, 1, 0.9]
    assert row["max_reward_200"][1] == late.rewards[199] < 1
    again = rewards_of([early, early, never])
    cells = reward_cells([row, again], against=[row, row])
    assert (cells["success_200"], cells["success_300"]) == (0.5, 2 / 3)
    assert cells["gain_300"] == 0 < cells["gain_200"]
    assert cells["reward_200"] > reward_cells([row], against=None)["reward_200"]
