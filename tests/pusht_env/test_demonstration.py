from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pusht_env import PushTEnv
from pusht_env.demonstration import (
    REACH,
    Demonstration,
    Gesture,
    Phase,
    Request,
    Scene,
    demonstrate,
    find_seed,
)

QUIT = Gesture(request=Request.QUIT)


class Script:
    """A hand that does one thing after the other, then quits, and remembers what it saw."""

    def __init__(self, gestures: Iterable[Gesture]) -> None:
        self._gestures = iter(gestures)
        self.scenes: list[Scene] = []

    def __call__(self, scene: Scene) -> Gesture:
        self.scenes.append(scene)
        return next(self._gestures, QUIT)


def pusher_of(seed: int) -> tuple[float, float]:
    env = PushTEnv(obs_type="state")
    env.reset(seed=seed)
    return float(env.state[0]), float(env.state[1])


def drag(seed: int, offsets: Iterable[tuple[float, float]]) -> Iterator[Gesture]:
    """Take the pusher of a seed's initial state, and draw it to places relative to where it was."""
    x, y = pusher_of(seed)
    for right, down in offsets:
        yield Gesture((x + right, y + down))


def ask(request: Request) -> Gesture:
    return Gesture(request=request)


def replayed(demonstration: Demonstration) -> NDArray[np.float32]:
    """The states of an episode with the demonstration's seed and actions, (T, 5)."""
    env = gym.make("pusht_env/PushT-v0", obs_type="state", max_episode_steps=len(demonstration.actions) + 1)
    state, _ = env.reset(seed=demonstration.seed)
    states = [state]
    for action in demonstration.actions[:-1]:
        state, *_ = env.step(action)
        states.append(state)
    return np.array(states, np.float32)


def test_a_person_who_does_as_a_published_demonstration_records_it_again(demonstrations_path: Path) -> None:
    """Episode 20 is one of the published ones that end with success, which nobody has to say here."""
    store = zarr.open_group(str(demonstrations_path), mode="r")
    ends = np.asarray(store["meta/episode_ends"]).tolist()
    rows = slice(ends[19], ends[20])
    published = {name: np.asarray(store[f"data/{name}"][rows]) for name in ("state", "action", "n_contacts")}
    hand = Script([*map(Gesture, map(tuple, published["action"].tolist())), ask(Request.KEEP)])

    (recorded,) = demonstrate(hand, [20], max_steps=1000)

    np.testing.assert_array_equal(recorded.actions, published["action"])
    np.testing.assert_array_equal(recorded.states, published["state"])
    # The published ones are of a physics engine that was of another opinion in some steps.
    assert recorded.n_contacts.shape == published["n_contacts"].shape
    assert np.mean(recorded.n_contacts == published["n_contacts"]) > 0.9
    assert recorded.is_success
    assert recorded.reward == 1.0
    assert hand.scenes[-1].phase is Phase.ENDED
    assert hand.scenes[-1].is_success


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1),
    places=st.lists(st.tuples(st.floats(-300, 900), st.floats(-300, 900)), min_size=1, max_size=20),
)
def test_what_is_recorded_replays_bit_for_bit(seed: int, places: list[tuple[float, float]]) -> None:
    """Also where the pointer is outside the workspace, or between the px of the screen."""
    gestures = [Gesture(pusher_of(seed)), *map(Gesture, places), ask(Request.KEEP)]

    (recorded,) = demonstrate(Script(gestures), [seed], max_steps=50)

    np.testing.assert_array_equal(replayed(recorded), recorded.states)
    assert recorded.actions.min() >= 0.0
    assert recorded.actions.max() <= 512.0


def test_the_pusher_follows_only_once_the_pointer_has_come_near() -> None:
    x, y = pusher_of(0)
    hand = Script(
        Gesture(pointer)
        for pointer in (None, (x + REACH, y), (x - REACH - 1, y), (x + REACH - 1, y), (x + 100, y))
    )

    assert not list(demonstrate(hand, [0], max_steps=100))

    assert [scene.phase for scene in hand.scenes] == [Phase.WAITING] * 4 + [Phase.FOLLOWING] * 2
    assert [scene.steps for scene in hand.scenes] == [0, 0, 0, 0, 1, 2]
    assert [tuple(scene.state[:2]) for scene in hand.scenes[:4]] == [(x, y)] * 4
    assert hand.scenes[-1].target == (x + 100, y)
    assert hand.scenes[-1].state[0] > x


def test_seeds_advance_with_what_is_kept_and_discarded_but_not_with_a_retry() -> None:
    hand = Script(
        [
            *drag(5, [(0, 0), (20, 0)]),
            ask(Request.RETRY),
            *drag(5, [(0, 0), (-20, 0), (-40, 0)]),
            ask(Request.KEEP),
            ask(Request.DISCARD),
            *drag(7, [(0, 10)]),
            ask(Request.KEEP),
        ]
    )

    first, second = demonstrate(hand, itertools.count(5), max_steps=100, kept=3)

    assert (first.seed, len(first.actions)) == (5, 3)
    assert (second.seed, len(second.actions)) == (7, 1)
    assert [scene.seed for scene in hand.scenes] == [5] * 7 + [6] + [7] * 2 + [8]
    assert [scene.kept for scene in hand.scenes] == [3] * 7 + [4] * 3 + [5]
    assert (hand.scenes[3].phase, hand.scenes[3].steps) == (Phase.WAITING, 0)


def test_an_episode_without_a_step_cannot_be_kept() -> None:
    assert not list(demonstrate(Script([ask(Request.KEEP), ask(Request.KEEP)]), [0], max_steps=100))


def test_quitting_discards_the_episode_at_hand() -> None:
    hand = Script([*drag(0, [(0, 0), (5, 5)]), ask(Request.QUIT), *drag(0, [(0, 0)]), ask(Request.KEEP)])

    assert not list(demonstrate(hand, itertools.count(), max_steps=100))
    assert len(hand.scenes) == 3


def test_the_world_stands_still_while_paused_and_the_pointer_must_come_back() -> None:
    x, y = pusher_of(0)
    away = Gesture((x + 400, y))
    hand = Script(
        [
            *drag(0, [(0, 0), (30, 0)]),
            Gesture((x + 30, y), Request.PAUSE),
            away,
            Gesture(away.pointer, Request.PAUSE),
            away,
            Gesture((x + 20, y)),
            ask(Request.KEEP),
        ]
    )

    (recorded,) = demonstrate(hand, [0], max_steps=100)

    phases = [scene.phase for scene in hand.scenes[2:7]]
    assert phases == [Phase.FOLLOWING, Phase.PAUSED, Phase.PAUSED, Phase.WAITING, Phase.WAITING]
    assert [scene.steps for scene in hand.scenes[2:]] == [2] * 5 + [3]
    np.testing.assert_array_equal(recorded.actions, np.float32([[x, y], [x + 30, y], [x + 20, y]]))
    np.testing.assert_array_equal(replayed(recorded), recorded.states)


def test_an_episode_ends_after_its_longest_time_and_waits_for_what_becomes_of_it() -> None:
    hand = Script([*drag(0, [(i, 0) for i in range(9)]), ask(Request.KEEP)])

    (recorded,) = demonstrate(hand, [0], max_steps=4)

    assert len(recorded.actions) == 4
    assert not recorded.is_success
    assert [scene.phase for scene in hand.scenes[4:]] == [Phase.ENDED] * 6
    assert not any(scene.is_success for scene in hand.scenes)


def test_the_seed_of_a_recorded_episode_is_found() -> None:
    (recorded,) = demonstrate(Script([*drag(41, [(3, 4)]), ask(Request.KEEP)]), [41], max_steps=100)

    assert find_seed(recorded.states[0], range(30, 50)) == 41
    assert find_seed(recorded.states[0], range(30, 40)) is None


@pytest.mark.parametrize("seeds", [[], [3]])
def test_no_more_seeds_are_the_end(seeds: list[int]) -> None:
    hand = Script([ask(Request.DISCARD)] * 5)

    assert not list(demonstrate(hand, seeds, max_steps=100))
    assert [scene.seed for scene in hand.scenes] == seeds
