"""Pictures of PushT: an antialiased frame of any size from a state, and a window to show frames in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pygame
from numpy.typing import NDArray

from pusht_env.block import GOAL_POSE, OUTLINE, to_world
from pusht_env.physics import CONTROL_HZ, PUSHER_RADIUS, WALL_CORNERS, WALL_RADIUS, WORKSPACE_SIZE

BACKGROUND = pygame.Color("white")
WALL = pygame.Color("lightgray")
GOAL = pygame.Color("lightgreen")
BLOCK = pygame.Color("lightslategray")
PUSHER = pygame.Color("royalblue")
TARGET = pygame.Color("crimson")
CHUNK_START, CHUNK_END = pygame.Color("darkorange"), pygame.Color("purple")

CHUNK_RADIUS = 4.0
TARGET_ARM = 12.0
TARGET_WIDTH = 5.0


def draw_frame(
    state: Sequence[float] | NDArray[np.floating],
    size: int,
    *,
    target: Sequence[float] | None = None,
    chunk: NDArray[np.floating] | None = None,
) -> NDArray[np.uint8]:
    """Draw the goal, the block and the pusher; on request also the pusher's target and the predicted actions.

    Args:
        state: `(5,)`: pusher x, y and block x, y in px of the workspace, block angle in rad.
        size: Side of the picture in its own px; the picture shows the same at any size.
        target: The action `(2,)` that is being followed, drawn as a cross.
        chunk: Predicted actions `(H, 2)`, drawn as dots from orange (next) to purple (last).

    Returns:
        `(size, size, 3)` RGB, row by row from the top.
    """
    # Drawn larger and averaged down, because pygame only antialiases outlines, not filled shapes.
    oversampling = 4 if size < 256 else 2
    canvas = pygame.Surface((size * oversampling, size * oversampling), depth=32)
    scale = canvas.get_width() / WORKSPACE_SIZE

    canvas.fill(BACKGROUND)
    near, far = WALL_CORNERS[1][0], WALL_CORNERS[3][0]
    for overhang, color in ((WALL_RADIUS, WALL), (-WALL_RADIUS, BACKGROUND)):
        start, end = round((near - overhang) * scale), round((far + overhang) * scale)
        pygame.draw.rect(canvas, color, (start, start, end - start, end - start))
    pygame.draw.polygon(canvas, GOAL, (to_world(OUTLINE, GOAL_POSE) * scale).tolist())
    pygame.draw.polygon(canvas, BLOCK, (to_world(OUTLINE, state[2:]) * scale).tolist())
    pygame.draw.circle(canvas, PUSHER, (state[0] * scale, state[1] * scale), PUSHER_RADIUS * scale)
    if chunk is not None:
        for index in range(len(chunk) - 1, -1, -1):
            color = CHUNK_START.lerp(CHUNK_END, index / max(len(chunk) - 1, 1))
            pygame.draw.circle(canvas, color, chunk[index] * scale, CHUNK_RADIUS * scale)
    if target is not None:
        x, y, arm = target[0] * scale, target[1] * scale, TARGET_ARM * scale
        width = max(1, round(TARGET_WIDTH * scale))
        pygame.draw.line(canvas, TARGET, (x - arm, y), (x + arm, y), width)
        pygame.draw.line(canvas, TARGET, (x, y - arm), (x, y + arm), width)

    frame = pygame.transform.smoothscale(canvas, (size, size))
    return np.ascontiguousarray(pygame.surfarray.array3d(frame).swapaxes(0, 1))


class Window:
    """A window on the screen that shows frames at the control rate."""

    def __init__(self) -> None:
        self._clock = pygame.time.Clock()

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a frame `(size, size, 3)`, at most one per control step of real time."""
        # pygame has one window per process, which another environment may have closed or resized.
        screen = pygame.display.get_surface()
        if screen is None or screen.get_size() != frame.shape[:2]:
            pygame.display.set_caption("PushT")
            screen = pygame.display.set_mode(frame.shape[:2])
        pygame.surfarray.blit_array(screen, frame.swapaxes(0, 1))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(CONTROL_HZ)

    def close(self) -> None:
        """Close the window."""
        pygame.display.quit()
