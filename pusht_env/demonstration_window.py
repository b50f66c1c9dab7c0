"""A window in which a person demonstrates PushT with the mouse and a few keys."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

import pygame

from pusht_env.demonstration import REACH, Gesture, Phase, Request, Scene
from pusht_env.physics import CONTROL_HZ, WORKSPACE_SIZE
from pusht_env.render import PUSHER, draw_frame

KEYS = {
    pygame.K_k: Request.KEEP,
    pygame.K_RETURN: Request.KEEP,
    pygame.K_d: Request.DISCARD,
    pygame.K_r: Request.RETRY,
    pygame.K_SPACE: Request.PAUSE,
    pygame.K_q: Request.QUIT,
    pygame.K_ESCAPE: Request.QUIT,
}
KEYS_TEXT = "K keep   D discard   R retry   Space pause   Q quit"
PHASE_TEXT = {
    Phase.WAITING: "Bring the mouse to the blue pusher.",
    Phase.FOLLOWING: "Push the T onto the green goal.",
    Phase.PAUSED: "Paused. Space goes on.",
}

PANEL = pygame.Color("gray15")
TEXT = pygame.Color("white")
DIM_TEXT = pygame.Color("gray65")
BAR, BAR_FILLED = pygame.Color("gray35"), pygame.Color("limegreen")
PANEL_HEIGHT = 84
MARGIN = 12
FONT_SIZE = 24


class NoScreenError(RuntimeError):
    """There is no screen to open a window on. The message says what to do."""


class DemonstrationWindow:
    """A `Hand`: shows each scene, waits for the end of the control step and returns what the person did meanwhile.

    Args:
        size: side of the workspace on the screen, in the screen's px.
        wait: waits for the end of a control step; by default in real time, at 10 Hz.

    Raises:
        NoScreenError: where there is no screen.
    """

    def __init__(self, size: int = 640, *, wait: Callable[[], object] | None = None) -> None:
        self._size = size
        self._screen = _open_screen((size, size + PANEL_HEIGHT))
        pygame.font.init()
        self._font = pygame.font.Font(None, FONT_SIZE)
        clock = pygame.time.Clock()
        self._wait = wait or (lambda: clock.tick(CONTROL_HZ))
        self._pointer: tuple[float, float] | None = None
        # Of several requests in a control step the later ones wait: "keep, quit" keeps first.
        self._requests: deque[Request] = deque()

    def __call__(self, scene: Scene) -> Gesture:
        """Show a scene, and return what the person did until the control step was over."""
        self._draw(scene)
        pygame.display.flip()
        self._wait()
        for event in pygame.event.get():
            if event.type == pygame.MOUSEMOTION:
                x, y = event.pos
                scale = WORKSPACE_SIZE / self._size
                self._pointer = x * scale, y * scale
            elif event.type == pygame.KEYDOWN and event.key in KEYS:
                self._requests.append(KEYS[event.key])
            elif event.type == pygame.QUIT:
                self._requests.append(Request.QUIT)
        return Gesture(self._pointer, self._requests.popleft() if self._requests else None)

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()

    def _draw(self, scene: Scene) -> None:
        frame = draw_frame(scene.state.tolist(), self._size, target=scene.target)
        self._screen.fill(PANEL)
        self._screen.blit(pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        if scene.phase is Phase.WAITING:
            scale = self._size / WORKSPACE_SIZE
            centre = round(scene.state[0] * scale), round(scene.state[1] * scale)
            pygame.draw.circle(self._screen, PUSHER, centre, round(REACH * scale), width=2)
        self._draw_panel(scene)

    def _draw_panel(self, scene: Scene) -> None:
        top = self._size
        bar = pygame.Rect(0, top, self._size, 6)
        pygame.draw.rect(self._screen, BAR, bar)
        pygame.draw.rect(
            self._screen, BAR_FILLED, (*bar.topleft, round(self._size * scene.reward), bar.height)
        )
        seconds = scene.steps / CONTROL_HZ
        self._write(f"seed {scene.seed}    {seconds:.1f} s    kept {scene.kept}", (MARGIN, top + 14))
        reward = self._font.render(f"reward {scene.reward:.2f}", True, TEXT)
        self._screen.blit(reward, (self._size - MARGIN - reward.get_width(), top + 14))
        self._write(_said(scene), (MARGIN, top + 37))
        self._write(KEYS_TEXT, (MARGIN, top + 60), color=DIM_TEXT)

    def _write(self, text: str, position: tuple[int, int], *, color: pygame.Color = TEXT) -> None:
        self._screen.blit(self._font.render(text, True, color), position)


def _said(scene: Scene) -> str:
    if scene.phase is Phase.ENDED:
        how = "Success." if scene.is_success else "Time is up."
        return f"{how} Keep it, discard it or try again?"
    return PHASE_TEXT[scene.phase]


def _open_screen(size: tuple[int, int]) -> pygame.Surface:
    advice = "run it in a desktop session, or set DISPLAY (as ssh -X does)"
    try:
        pygame.display.init()
        # What SDL falls back to by itself shows nothing to anybody.
        if pygame.display.get_driver() in ("dummy", "offscreen") and "SDL_VIDEODRIVER" not in os.environ:
            pygame.display.quit()
            raise NoScreenError(f"there is no screen for the window: {advice}")
        pygame.display.set_caption("PushT, demonstrated by hand")
        return pygame.display.set_mode(size)
    except pygame.error as error:
        raise NoScreenError(f"there is no screen for the window ({error}): {advice}") from error
