"""With events posted to pygame, on a screen that only memory has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pygame
import pytest

from pusht_env import PushTEnv
from pusht_env.demonstration import Gesture, Phase, Request, Scene, demonstrate
from pusht_env.demonstration_window import PANEL_HEIGHT, DemonstrationWindow, NoScreenError
from pusht_env.render import BLOCK, GOAL, PUSHER, TARGET

SCENE = Scene(
    seed=0,
    phase=Phase.FOLLOWING,
    state=np.array([400.0, 100.0, 120.0, 350.0, 0.0]),
    target=None,
    reward=0.5,
    is_success=False,
    steps=12,
    kept=3,
)
Open = Callable[..., DemonstrationWindow]


@pytest.fixture
def open_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened: list[DemonstrationWindow] = []

    def open_(size: int = 512, wait: Callable[[], object] = lambda: None) -> DemonstrationWindow:
        opened.append(DemonstrationWindow(size, wait=wait))
        pygame.event.clear()
        return opened[-1]

    yield open_
    for window in opened:
        window.close()


def press(*keys: int) -> None:
    for key in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
        pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))


def move(x: float, y: float) -> None:
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=(x, y), rel=(0, 0), buttons=(0, 0, 0)))


def picture() -> np.ndarray:
    """What the window shows, (size + panel, size, 3)."""
    surface = pygame.display.get_surface()
    assert surface is not None
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


@pytest.mark.parametrize("size", [256, 512, 640])
def test_the_pointer_is_in_px_of_the_workspace_and_stays_where_it_was(open_window: Open, size: int) -> None:
    window = open_window(size)
    assert window(SCENE) == Gesture()
    move(10, 20)
    move(size // 2, size // 4)
    assert window(SCENE) == Gesture((256.0, 128.0))
    assert window(SCENE) == Gesture((256.0, 128.0))


@pytest.mark.parametrize(
    ("key", "request_"),
    [
        (pygame.K_k, Request.KEEP),
        (pygame.K_RETURN, Request.KEEP),
        (pygame.K_d, Request.DISCARD),
        (pygame.K_r, Request.RETRY),
        (pygame.K_SPACE, Request.PAUSE),
        (pygame.K_q, Request.QUIT),
        (pygame.K_ESCAPE, Request.QUIT),
        (pygame.K_a, None),
    ],
)
def test_keys_are_requests(open_window: Open, key: int, request_: Request | None) -> None:
    window = open_window()
    press(key)
    assert window(SCENE).request is request_
    assert window(SCENE).request is None


def test_closing_the_window_quits(open_window: Open) -> None:
    window = open_window()
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window(SCENE).request is Request.QUIT


def test_of_several_keys_in_one_control_step_none_is_lost(open_window: Open) -> None:
    window = open_window()
    press(pygame.K_k, pygame.K_d, pygame.K_q)
    requests = [window(SCENE).request for _ in range(4)]
    assert requests == [Request.KEEP, Request.DISCARD, Request.QUIT, None]


def test_what_happens_while_it_waits_counts_for_that_control_step(open_window: Open) -> None:
    window = open_window(wait=lambda: move(100, 200))
    assert window(SCENE).pointer == (100.0, 200.0)


def test_it_shows_block_pusher_and_goal_above_a_panel(open_window: Open) -> None:
    window = open_window()
    window(SCENE)
    shown = picture()

    assert shown.shape == (512 + PANEL_HEIGHT, 512, 3)
    assert tuple(shown[100, 400]) == tuple(PUSHER)[:3]
    assert tuple(shown[460, 120]) == tuple(BLOCK)[:3]
    assert tuple(shown[316, 196]) == tuple(GOAL)[:3]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"steps": 13},
        {"kept": 4},
        {"reward": 0.6},
        {"phase": Phase.PAUSED},
        {"phase": Phase.WAITING},
        {"phase": Phase.ENDED},
    ],
    ids=str,
)
def test_the_panel_says_what_is_going_on(open_window: Open, change: dict[str, object]) -> None:
    window = open_window()
    window(SCENE)
    before = picture()[512:]
    window(Scene(**{**vars(SCENE), **change}))
    assert (picture()[512:] != before).any()


def test_the_panels_words_fit_the_smallest_window(open_window: Open) -> None:
    window = open_window(448)
    for phase in Phase:
        window(Scene(**{**vars(SCENE), "phase": phase, "seed": 2**32 - 1, "steps": 9999, "kept": 9999}))
        assert (picture()[448 + 6 :, -4:] == picture()[-1, -1]).all(), phase


def test_the_target_and_the_reach_of_the_pointer_are_marked(open_window: Open) -> None:
    window = open_window()
    window(Scene(**{**vars(SCENE), "target": (300.0, 60.0)}))
    assert tuple(picture()[60, 300]) == tuple(TARGET)[:3]
    window(Scene(**{**vars(SCENE), "phase": Phase.WAITING}))
    assert tuple(picture()[100, 429]) == tuple(PUSHER)[:3]


def test_an_episode_is_demonstrated_with_mouse_and_keys(open_window: Open) -> None:
    env = PushTEnv(obs_type="state")
    env.reset(seed=3)
    x, y = (int(value) for value in env.state[:2])
    steps = iter(
        [
            lambda: move(x, y),
            lambda: move(x + 7, y),
            lambda: None,
            lambda: press(pygame.K_SPACE),
            lambda: move(5, 5),
            lambda: press(pygame.K_SPACE),
            lambda: move(x + 10, y + 1),
            lambda: press(pygame.K_RETURN, pygame.K_q),
        ]
    )
    window = open_window(wait=lambda: next(steps, lambda: None)())

    (recorded,) = demonstrate(window, [3, 4], max_steps=100)

    expected = [[x, y], [x + 7, y], [x + 7, y], [x + 10, y + 1]]
    np.testing.assert_array_equal(recorded.actions, np.float32(expected))
    assert next(steps, None) is None


def test_control_steps_take_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    window = DemonstrationWindow(256)
    window(SCENE)
    start = pygame.time.get_ticks()
    for _ in range(3):
        window(SCENE)
    assert pygame.time.get_ticks() - start >= 290  # three of 100 ms, each rounded to whole ms
    window.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_where_there_is_no_screen_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    pygame.display.quit()
    with pytest.raises(NoScreenError, match=r"^there is no screen for the window.*desktop session") as raised:
        DemonstrationWindow()
    assert "\n" not in str(raised.value)
    assert not pygame.display.get_init()
