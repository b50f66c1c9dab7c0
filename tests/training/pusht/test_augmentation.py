from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from policy import PolicyConfig
from pusht_env.mirror import mirrored_states
from training.data.demonstrations import load_demonstrations
from training.data.windows import join_windows, policy_windows
from training.pusht.augmentation import load_states, mirrored


def test_mirrored_demonstrations_are_those_seen_in_the_mirror(demonstrations_path: Path) -> None:
    original = load_demonstrations(demonstrations_path, task="pusht")
    states = load_states(demonstrations_path, original)
    image = mirrored(original, states)
    assert np.array_equal(image.episode_ends, original.episode_ends)
    # The pusher is observed where the mirror shows it, and sent to where the mirror shows its target.
    np.testing.assert_allclose(
        image.observations[:, 18:], 512 - original.observations[:, [19, 18]], atol=1e-4
    )
    np.testing.assert_allclose(image.actions, 512 - original.actions[:, ::-1], atol=1e-4)
    # The axis of the block, from the middle of its bar to the end of its stem, is reflected.
    axis, axis_image = (
        each.observations[:, 8:10] - poses[:, 2:4]
        for each, poses in ((original, states), (image, mirrored_states(states)))
    )
    assert np.median(np.abs(np.linalg.norm(axis_image, axis=1) - np.linalg.norm(axis, axis=1))) < 1e-3
    twice = mirrored(image, mirrored_states(states).astype(np.float32))
    np.testing.assert_allclose(twice.actions, original.actions, atol=1e-3)
    # In 58 rows the published keypoints are not those of the row's own pose.
    assert (np.abs(twice.observations - original.observations).max(1) > 0.1).sum() == 58


def test_joined_windows_are_all_of_them(demonstrations_path: Path) -> None:
    demonstrations = load_demonstrations(demonstrations_path, task="pusht")
    one, two = (policy_windows(demonstrations, episodes, PolicyConfig()) for episodes in ([0], [1]))
    joined = join_windows([one, two])
    assert torch.equal(joined.actions, torch.cat((one.actions, two.actions)))
    assert len(joined.observations) == len(one.observations) + len(two.observations)
