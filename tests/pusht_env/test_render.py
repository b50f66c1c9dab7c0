from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pusht_env.block import GOAL_POSE
from pusht_env.env import PushTEnv
from pusht_env.render import BACKGROUND, BLOCK, GOAL, PUSHER, TARGET, draw_frame

STATE = [400.0, 100.0, 120.0, 350.0, 2.0]


def share(frame: NDArray[np.uint8], color: tuple[int, ...]) -> float:
    """Share of the workspace, in px² of 512 x 512, that has exactly this color."""
    return float((frame == np.array(color[:3], np.uint8)).all(axis=-1).mean()) * 512**2


@pytest.mark.parametrize("size", [96, 512, 1000])
def test_frames_show_goal_block_and_pusher_in_their_size(size: int) -> None:
    frame = draw_frame(STATE, size)

    assert frame.shape == (size, size, 3)
    assert frame.dtype == np.uint8
    # Mixed edges have mixed colors, so that of a small frame less is of a pure one. Half of the block's edge is inside.
    outline_px = 512 / size
    assert share(frame, tuple(GOAL)) == pytest.approx(6300, abs=600 * outline_px)
    assert share(frame, tuple(BLOCK)) == pytest.approx(6300 - 2 * 480, abs=600 * outline_px)
    assert share(frame, tuple(PUSHER)) == pytest.approx(np.pi * 11**2, abs=60 * outline_px)
    assert share(frame, tuple(BACKGROUND)) > 200_000


def test_small_and_large_frames_show_the_same() -> None:
    large = Image.fromarray(draw_frame(STATE, 512, target=(300, 300)))
    small = Image.fromarray(draw_frame(STATE, 96, target=(300, 300)))

    coarse = [np.asarray(each.resize((32, 32), Image.Resampling.BOX), np.int16) for each in (large, small)]
    assert np.abs(coarse[0] - coarse[1]).max() < 45


def test_things_are_where_the_state_says() -> None:
    frame = draw_frame([400.0, 100.0, 120.0, 350.0, 0.0], 512)

    def color_at(x: int, y: int) -> tuple[int, ...]:
        return tuple(frame[y, x].tolist())

    assert color_at(400, 100) == tuple(PUSHER)[:3]
    assert color_at(120, 350 + 110) == tuple(BLOCK)[:3]  # the stem's end, below the bar in the picture
    assert color_at(120 - 50, 350 + 15) == tuple(BLOCK)[:3]
    assert color_at(120 - 50, 350 + 60) == tuple(BACKGROUND)[:3]
    # The goal's stem points down and to the left.
    assert color_at(256 - 60, 256 + 60) == tuple(GOAL)[:3]
    assert color_at(256 + 60, 256 + 60) == tuple(BACKGROUND)[:3]


def test_edges_of_large_frames_are_antialiased() -> None:
    colors = np.unique(draw_frame(STATE, 512).reshape(-1, 3), axis=0)

    assert len(colors) > 20


def test_the_block_covers_the_goal_it_lies_on() -> None:
    assert share(draw_frame([60, 60, *GOAL_POSE], 512), tuple(GOAL)) == 0


def test_target_and_predicted_chunk_are_drawn_on_request() -> None:
    chunk = np.array([[100.0, 100.0], [150.0, 100.0]])
    plain, marked = draw_frame(STATE, 512), draw_frame(STATE, 512, target=(300, 300), chunk=chunk)

    assert share(plain, tuple(TARGET)) == 0
    assert share(marked, tuple(TARGET)) > 50
    changed = (plain != marked).any(axis=-1)
    assert changed[300, 300]
    assert changed[100, 100]
    assert changed[100, 150]
    assert changed.sum() < 1000


def test_env_renders_its_size_with_the_last_action_and_the_chunk() -> None:
    env = PushTEnv(render_mode="rgb_array", render_size=256)
    env.reset(options={"state": STATE})
    before = env.render()
    assert before is not None
    assert before.shape == (256, 256, 3)
    assert share(before, tuple(TARGET)) == 0

    env.step([300, 300])
    stepped = env.render()
    env.predicted_chunk = np.array([[450.0, 450.0]])
    with_chunk = env.render()
    assert stepped is not None
    assert with_chunk is not None
    assert share(stepped, tuple(TARGET)) > 0
    assert (with_chunk[225, 225] != stepped[225, 225]).any()

    env.reset(options={"state": STATE})
    np.testing.assert_array_equal(env.render(), before)


def test_pixels_show_the_state_without_markers() -> None:
    env = PushTEnv(obs_type="pixels")
    env.reset(options={"state": STATE})
    pixels, *_ = env.step([300, 300])

    np.testing.assert_array_equal(pixels, draw_frame(env.state, 96))


def test_render_without_a_mode_says_what_is_missing() -> None:
    env = PushTEnv()
    env.reset(seed=0)

    with pytest.warns(UserWarning, match="pass one to gymnasium.make"):
        assert env.render() is None


def test_two_windows_can_be_closed_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    first, second = (PushTEnv(render_mode="human", render_size=size) for size in (96, 128))
    first.reset(seed=0)
    second.reset(seed=0)
    first.close()
    first.close()

    second.step([100, 100])

    second.close()


def test_human_mode_is_declared() -> None:
    assert set(gym.spec("pusht_env/PushT-v0").make().metadata["render_modes"]) == {"rgb_array", "human"}
