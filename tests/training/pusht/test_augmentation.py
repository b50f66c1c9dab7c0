from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from policy import PolicyConfig
from pusht_env.env import PIXELS_SIZE
from pusht_env.mirror import mirrored_pictures, mirrored_states
from pusht_env.render import draw_frame
from training.data.demonstrations import load_demonstrations
from training.data.pictures import unpack_pictures
from training.data.windows import join_windows, policy_windows
from training.pusht.augmentation import WithMirrorImages, load_states, mirrored
from training.pusht.published_pictures import OFF_BY


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
    joined = join_windows([one, two], num_steps=1000)
    assert torch.equal(joined.actions, torch.cat((one.actions, two.actions)))
    assert torch.equal(joined.steps, torch.cat((one.steps, two.steps + 1000)))
    assert len(joined.observations) == len(one.observations) + len(two.observations)


def test_pictures_in_the_mirror_show_mirrored_states() -> None:
    states = np.random.default_rng(0).uniform([60, 60, 130, 130, -3], [450, 450, 380, 380, 3], (12, 5))
    drawn, expected = (
        np.stack([draw_frame(state, PIXELS_SIZE) for state in each.tolist()])
        for each in (states, mirrored_states(states))
    )
    found = mirrored_pictures(drawn)
    off = (np.abs(found.astype(int) - expected).max(-1) > OFF_BY).mean()
    assert off < 0.03, "edges are drawn a pixel away"
    assert (np.abs(drawn.astype(int) - expected).max(-1) > OFF_BY).mean() > 3 * off
    np.testing.assert_array_equal(mirrored_pictures(found), drawn)


def test_mirror_images_of_pictures_are_behind_them() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    pictures = unpack_pictures([values], values.shape, folder=None, where="")
    read = WithMirrorImages(pictures).read(np.array([0, 9, 4, 5]))
    mirrored_ones = mirrored_pictures(values)
    np.testing.assert_array_equal(read, [values[0], mirrored_ones[4], values[4], mirrored_ones[0]])
