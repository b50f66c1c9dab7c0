"""Pictures of PushT: a frame of any size from a state, and a window to show frames in.

Shapes, colours and edges are those of the published demonstrations (Diffusion Policy, Chi et al. 2023, which draws with
pymunk's debug drawing on 512 x 512 px). A small frame is what a policy sees, and is sampled from that as theirs were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pygame
from numpy.typing import NDArray

from pusht_env.block import BAR, GOAL_POSE, STEM, to_world
from pusht_env.physics import CONTROL_HZ, PUSHER_RADIUS, WALL_CORNERS, WALL_RADIUS, WORKSPACE_SIZE

BACKGROUND = pygame.Color("white")
WALL = pygame.Color("lightgray")
GOAL = pygame.Color("lightgreen")
BLOCK, BLOCK_EDGE = pygame.Color(142, 163, 183), pygame.Color("lightslategray")
PUSHER, PUSHER_EDGE = pygame.Color(78, 126, 255), pygame.Color("royalblue")
TARGET = pygame.Color("crimson")
CHUNK_START, CHUNK_END = pygame.Color("darkorange"), pygame.Color("purple")

EDGE_RADIUS, PUSHER_EDGE_WIDTH = 2.0, 4.0
CHUNK_RADIUS = 4.0
TARGET_ARM = 12.0
TARGET_WIDTH = 5.0

DRAWN_SIZE = 512
SAMPLED_BELOW = 256  # px: smaller frames are sampled as the published ones were, larger ones are antialiased


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
        size: Side of the picture in its own px; the picture shows the same at any size. At 96 it is what the published
            demonstrations have.
        target: The action `(2,)` that is being followed, drawn as a cross.
        chunk: Predicted actions `(H, 2)`, drawn as dots from orange (next) to purple (last).

    Returns:
        `(size, size, 3)` RGB, row by row from the top.
    """
    is_sampled = size < SAMPLED_BELOW
    side = DRAWN_SIZE if is_sampled else 2 * size
    canvas = pygame.Surface((side, side), depth=32)
    scale = side / WORKSPACE_SIZE

    canvas.fill(BACKGROUND)
    for rectangle in (BAR, STEM):
        pygame.draw.polygon(canvas, GOAL, _corners(rectangle, GOAL_POSE, scale))
    for rectangle in (BAR, STEM):
        corners = _corners(rectangle, state[2:], scale)
        pygame.draw.polygon(canvas, BLOCK, corners)
        for start, end in zip(corners, (*corners[1:], corners[0]), strict=True):
            _draw_edge(canvas, start, end, radius=EDGE_RADIUS * scale, color=BLOCK_EDGE)
    center = (round(state[0] * scale), round(state[1] * scale))
    pygame.draw.circle(canvas, PUSHER_EDGE, center, round(PUSHER_RADIUS * scale))
    pygame.draw.circle(canvas, PUSHER, center, round((PUSHER_RADIUS - PUSHER_EDGE_WIDTH) * scale))
    walls = [(round(x * scale), round(y * scale)) for x, y in WALL_CORNERS]
    for start, end in zip(walls, (*walls[1:], walls[0]), strict=True):
        _draw_edge(canvas, start, end, radius=WALL_RADIUS * scale, color=WALL)
    if chunk is not None:
        for index in range(len(chunk) - 1, -1, -1):
            color = CHUNK_START.lerp(CHUNK_END, index / max(len(chunk) - 1, 1))
            pygame.draw.circle(canvas, color, chunk[index] * scale, CHUNK_RADIUS * scale)
    if target is not None:
        x, y, arm = target[0] * scale, target[1] * scale, TARGET_ARM * scale
        width = max(1, round(TARGET_WIDTH * scale))
        pygame.draw.line(canvas, TARGET, (x - arm, y), (x + arm, y), width)
        pygame.draw.line(canvas, TARGET, (x, y - arm), (x, y + arm), width)

    if is_sampled:
        return _sampled(_pixels(canvas), size)
    return _pixels(pygame.transform.smoothscale(canvas, (size, size)))


def _corners(
    rectangle: tuple[float, float, float, float],
    pose: Sequence[float] | NDArray[np.floating],
    scale: float,
) -> list[tuple[int, int]]:
    """A rectangle of the block's frame, in whole px of a picture."""
    left, right, top, bottom = rectangle
    corners = to_world([(left, bottom), (right, bottom), (right, top), (left, top)], pose) * scale
    return [(round(x), round(y)) for x, y in corners.tolist()]


def _draw_edge(
    canvas: pygame.Surface,
    start: tuple[int, int],
    end: tuple[int, int],
    *,
    radius: float,
    color: pygame.Color,
) -> None:
    """A thick line with round ends, as pymunk's debug drawing has it: its rectangle spreads by absolute values."""
    pygame.draw.line(canvas, color, start, end, round(max(1, 2 * radius)))
    run, rise = abs(end[0] - start[0]), abs(end[1] - start[1])
    length = math.hypot(run, rise)
    if length == 0:
        return
    x, y = round(rise * radius / length), round(run * radius / length)
    rectangle = [
        (start[0] - x, start[1] - y),
        (start[0] + x, start[1] + y),
        (end[0] + x, end[1] + y),
        (end[0] - x, end[1] - y),
    ]
    pygame.draw.polygon(canvas, color, rectangle)
    for point in (start, end):
        pygame.draw.circle(canvas, color, point, round(radius))


def _pixels(surface: pygame.Surface) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pygame.surfarray.array3d(surface).swapaxes(0, 1))


def _sampled(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A smaller picture by linear interpolation between neighbours, without averaging, as OpenCV's default resizes.

    In its fixed-point numbers of 11 bits.
    """
    places = np.maximum((np.arange(size) + 0.5) * (len(picture) / size) - 0.5, 0.0)
    first = np.minimum(places.astype(np.int64), len(picture) - 2)
    second_weight = np.rint((places - first) * 2048).astype(np.int32)
    first_weight = 2048 - second_weight
    rows = np.stack((picture[first], picture[first + 1])).astype(np.int32)  # (2, size, W, 3)
    blended = (
        rows[:, :, first] * first_weight[:, None] + rows[:, :, first + 1] * second_weight[:, None]
    )  # (2, size, size, 3)
    total = blended[0] * first_weight[:, None, None] + blended[1] * second_weight[:, None, None]
    return ((total + (1 << 21)) >> 22).astype(np.uint8)


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
