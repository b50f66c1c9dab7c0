"""Demonstrations of PushT by a person: an episode loop that asks a hand, in each control step, where the pusher goes.

The hand is a function, so that a window, a test or a script can be one. What is recorded is what was applied: an
episode replays bit for bit from its seed and its actions. Rows are those of the published demonstrations (Chi et al.,
RSS 2023): the state before a control step, and the action of that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from pusht_env.env import SUCCESS_COVERAGE, PushTEnv
from pusht_env.physics import PUSHER_RADIUS, WORKSPACE_SIZE, PushTPhysics

REACH = 2 * PUSHER_RADIUS
"""How near the pointer must come to the pusher before it is followed, in px. As for the published demonstrations."""


class Request(Enum):
    """What a person may ask for."""

    KEEP = "keep"
    DISCARD = "discard"
    RETRY = "retry"
    PAUSE = "pause"
    QUIT = "quit"


class Phase(Enum):
    """Where an episode is: the pusher follows in `FOLLOWING` alone, and the world stands still in all others."""

    WAITING = "waiting"
    FOLLOWING = "following"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a person sees before a control step.

    Attributes:
        seed: of the episode's initial state.
        phase: of the episode.
        state: pusher x, y and block x, y in px, block angle in rad, `(5,)`.
        target: the action x, y in px that is being followed, or `None`.
        reward: of the state, 0 to 1.
        is_success: whether the episode has ended with success.
        steps: control steps recorded in the episode.
        kept: episodes kept before this one.
    """

    seed: int
    phase: Phase
    state: NDArray[np.float64]
    target: tuple[float, float] | None
    reward: float
    is_success: bool
    steps: int
    kept: int


@dataclass(frozen=True)
class Gesture:
    """What a person does in a control step.

    Attributes:
        pointer: x, y in px of the workspace, or `None` as long as it is not known.
        request: what is asked for, if anything.
    """

    pointer: tuple[float, float] | None = None
    request: Request | None = None


Hand = Callable[[Scene], Gesture]


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """An episode that was kept, T control steps.

    Attributes:
        seed: of its initial state.
        states: `(T, 5)` float32: pusher x, y and block x, y in px, block angle in rad, before each step.
        actions: `(T, 2)` float32, px: target position of the pusher in each step.
        n_contacts: `(T, 1)` float32: contact points per physics step in the step before.
        reward: largest of its control steps.
        is_success: whether its last step was a success.
    """

    seed: int
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    n_contacts: NDArray[np.float32]
    reward: float
    is_success: bool


@dataclass(frozen=True)
class _Row:
    """One control step: what was there before it, and what was done."""

    state: NDArray[np.float64]  # (5,)
    action: NDArray[np.float32]  # (2,) px
    contacts: int


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How an episode ended: by which request, with what."""

    request: Request
    rows: tuple[_Row, ...]
    reward: float
    is_success: bool


def demonstrate(
    hand: Hand, seeds: Iterable[int], *, max_steps: int, kept: int = 0
) -> Iterator[Demonstration]:
    """Episodes that a person keeps, one seed after the other, until there are no more or the person quits.

    An episode ends with success or after `max_steps`. Then, or at any time before, the person keeps it, discards it
    (the next one has the next seed) or tries it again. An episode without a step cannot be kept.

    Args:
        hand: asked once a control step.
        seeds: of the initial states.
        max_steps: control steps of an episode, at least 1.
        kept: episodes kept before, which the scenes count on from.
    """
    env = PushTEnv(obs_type="state")
    for seed in seeds:
        while True:
            outcome = _episode(env, hand, seed, max_steps=max_steps, kept=kept)
            if outcome.request is not Request.RETRY:
                break
        if outcome.request is Request.QUIT:
            return
        if outcome.request is Request.KEEP:
            kept += 1
            yield _demonstration(seed, outcome)


def find_seed(state: NDArray[np.floating], candidates: Iterable[int]) -> int | None:
    """The first of the seeds whose initial state is this one, in float32; `None` if it is none's.

    Args:
        state: `(5,)`, the first row of an episode.
    """
    wanted = np.asarray(state, np.float32)
    for seed in candidates:
        physics = PushTPhysics.from_seed(seed)
        if np.array_equal(np.array([*physics.pusher_position, *physics.block_pose], np.float32), wanted):
            return seed
    return None


def _episode(env: PushTEnv, hand: Hand, seed: int, *, max_steps: int, kept: int) -> _Outcome:
    _, info = env.reset(seed=seed)
    rows: list[_Row] = []
    phase, target, is_success = Phase.WAITING, None, False
    reward, best = min(info["coverage"] / SUCCESS_COVERAGE, 1.0), 0.0
    while True:
        scene = Scene(
            seed=seed,
            phase=phase,
            state=env.state,
            target=target,
            reward=reward,
            is_success=is_success,
            steps=len(rows),
            kept=kept,
        )
        gesture = hand(scene)
        if gesture.request is Request.PAUSE:
            phase = _paused(phase)
        elif gesture.request is not None and (gesture.request is not Request.KEEP or rows):
            return _Outcome(request=gesture.request, rows=tuple(rows), reward=best, is_success=is_success)
        if phase is Phase.WAITING and _is_near(gesture.pointer, env.state):
            phase = Phase.FOLLOWING
        if phase is not Phase.FOLLOWING or gesture.pointer is None:
            continue
        # Of the type that is stored, so that what is replayed is what was applied.
        action = np.clip(gesture.pointer, 0.0, WORKSPACE_SIZE).astype(np.float32)
        rows.append(_Row(env.state, action, info["contacts"]))
        _, reward, is_success, _, info = env.step(action)
        best = max(best, reward)
        target = float(action[0]), float(action[1])
        if is_success or len(rows) >= max_steps:
            phase = Phase.ENDED


def _paused(phase: Phase) -> Phase:
    """The phase after a request to pause, or to go on."""
    if phase is Phase.FOLLOWING:
        return Phase.PAUSED
    # The pointer has gone elsewhere meanwhile: followed from there, the pusher would leap.
    return Phase.WAITING if phase is Phase.PAUSED else phase


def _is_near(pointer: tuple[float, float] | None, state: NDArray[np.float64]) -> bool:
    return pointer is not None and math.dist(pointer, state[:2].tolist()) < REACH


def _demonstration(seed: int, outcome: _Outcome) -> Demonstration:
    return Demonstration(
        seed=seed,
        states=np.stack([row.state for row in outcome.rows]).astype(np.float32),
        actions=np.stack([row.action for row in outcome.rows]),
        n_contacts=np.array([[row.contacts] for row in outcome.rows], np.float32),
        reward=outcome.reward,
        is_success=outcome.is_success,
    )
