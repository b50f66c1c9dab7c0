"""The command with a real window, on a screen that only memory has, and mouse and keys as events posted to pygame."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pygame
import pytest
import zarr

from pusht_env import PushTEnv
from pusht_env.demonstration import Gesture, Request, Scene, find_seed
from pusht_env.demonstration_window import DemonstrationWindow
from training.data.store_arrays import EPISODE_ENDS
from training.policy import train_policy
from training.pusht.append_episode import append_episode, stored_episodes
from training.pusht.demonstrate_pusht import DemonstrateConfig, main, record, starting_point

KEEP = Gesture(request=Request.KEEP)


def pusher_of(seed: int) -> tuple[float, float]:
    env = PushTEnv(obs_type="state")
    env.reset(seed=seed)
    return float(env.state[0]), float(env.state[1])


def steps_of(seed: int, steps: int) -> Iterator[Gesture]:
    """Take the pusher of a seed's initial state and draw it around."""
    x, y = pusher_of(seed)
    rng = np.random.default_rng(seed)
    for right, down in np.cumsum(rng.uniform(-10, 10, (steps, 2)), axis=0).tolist():
        yield Gesture((x + right, y + down))


def hand(gestures: Iterable[Gesture]) -> Callable[[Scene], Gesture]:
    """One that does one thing after the other, then quits."""
    waiting = iter(gestures)
    return lambda scene: next(waiting, Gesture(request=Request.QUIT))


def config(path: Path, **options: int) -> DemonstrateConfig:
    return DemonstrateConfig(output=str(path), **options)


def assert_replays(path: Path, candidates: range) -> None:
    """Each episode of the store, from its seed and its actions, to the last bit."""
    arrays, _ = stored_episodes(path)
    start = 0
    for end in arrays[EPISODE_ENDS].tolist():
        states, actions = arrays["data/state"][start:end], arrays["data/action"][start:end]
        env = gym.make("pusht_env/PushT-v0", obs_type="state", max_episode_steps=len(actions))
        state, _ = env.reset(seed=find_seed(states[0], candidates))
        for recorded, action in zip(states, actions, strict=True):
            np.testing.assert_array_equal(np.float32(state), recorded)
            state, *_ = env.step(action)
        start = end


def test_mouse_events_of_a_published_demonstration_give_its_rows(
    demonstrations_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Episode 20, one of those that end with success."""
    store = zarr.open_group(str(demonstrations_path), mode="r")
    ends = np.asarray(store["meta/episode_ends"]).tolist()
    names = ("state", "action", "keypoint", "n_contacts")
    published = {name: np.asarray(store[f"data/{name}"][ends[19] : ends[20]]) for name in names}
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    events = [
        *(pygame.event.Event(pygame.MOUSEMOTION, pos=tuple(to)) for to in published["action"].tolist()),
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_k),
        pygame.event.Event(pygame.QUIT),
    ]
    waiting = iter(events)
    window = DemonstrationWindow(512, wait=lambda: pygame.event.post(next(waiting)))

    record(config(tmp_path / "my.zarr"), window, range(20, 22))
    window.close()

    assert next(waiting, None) is None
    assert capsys.readouterr().out.strip().endswith("kept seed 20 (14.2 s, reward 1.00), 1 episodes now")
    arrays, _ = stored_episodes(tmp_path / "my.zarr")
    for name in names:
        assert arrays[f"data/{name}"].shape == published[name].shape
        assert arrays[f"data/{name}"].dtype == published[name].dtype
    np.testing.assert_array_equal(arrays["data/state"], published["state"])
    np.testing.assert_array_equal(arrays["data/action"], published["action"])
    assert np.abs(arrays["data/keypoint"] - published["keypoint"]).max() < 0.1
    assert np.mean(arrays["data/n_contacts"] == published["n_contacts"]) > 0.9
    assert_replays(tmp_path / "my.zarr", range(20, 21))


def test_the_next_session_goes_on_with_the_seed_after_the_last(tmp_path: Path) -> None:
    path = tmp_path / "my.zarr"
    assert starting_point(config(path)) == (0, 0)
    discard = Gesture(request=Request.DISCARD)
    record(config(path), hand([*steps_of(0, 3), KEEP, discard, discard, *steps_of(3, 2), KEEP]), range(10))

    assert starting_point(config(path)) == (2, 4)
    assert starting_point(config(path, seed=7)) == (2, 7)

    record(config(path), hand([*steps_of(4, 2), KEEP, *steps_of(5, 9)]), range(4, 10), kept=2)
    assert starting_point(config(path)) == (3, 5)
    assert_replays(path, range(10))


def test_a_copy_of_the_published_store_can_be_gone_on_with(demonstrations_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.zarr"
    path.symlink_to(demonstrations_path)
    assert starting_point(config(path)) == (206, 206)


def test_an_unknown_seed_has_to_be_said(tmp_path: Path) -> None:
    path = tmp_path / "my.zarr"
    append_episode(path, np.full((2, 5), 100.0), np.full((2, 2), 100.0), n_contacts=np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"begins as none of the seeds 0 … 1999 does; seed=… must say"):
        starting_point(config(path))
    assert starting_point(config(path, seed=50)) == (1, 50)


def test_what_is_recorded_trains_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "my.zarr"
    record(
        config(path),
        hand([*steps_of(0, 20), KEEP, *steps_of(1, 20), KEEP, *steps_of(2, 20), KEEP]),
        range(3),
    )
    tiny = ["policy.down_dims=[8,16]", "policy.step_embed_dim=8", "policy.n_groups=4", "rollout_episodes=0"]
    training = ["steps=2", "batch_size=4", "log_every=1", "checkpoint_every=2", "validate_every=2"]
    arguments = [f"demonstrations={path}", f"output_dir={tmp_path}/out", "held_out_episodes=1", *tiny]

    assert train_policy.main([*arguments, *(f"training.{option}" for option in training)]) == 0
    assert (tmp_path / "out" / "policy.safetensors").exists()


def test_the_command_runs_in_real_time_until_the_person_quits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my.zarr"
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    ended, pusher = threading.Event(), pusher_of(0)

    def act() -> None:
        """Insists, since nobody knows when the window is there."""
        while not ended.wait(0.05):
            with suppress(pygame.error):  # there is none yet, or no more
                if path.exists():
                    pygame.event.post(pygame.event.Event(pygame.QUIT))
                pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=pusher))
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN))

    person = threading.Thread(target=act)
    person.start()
    try:
        assert main([f"output={path}", "size=512"]) == 0
    finally:
        ended.set()
        person.join()
    assert not pygame.display.get_init()
    assert starting_point(config(path)) == (1, 1)
    assert_replays(path, range(1))


KILLED = """
import sys, time
import pygame
from pusht_env.demonstration_window import DemonstrationWindow
from training.pusht.demonstrate_pusht import DemonstrateConfig, record

path, *places = sys.argv[1:]
events = [pygame.event.Event(pygame.MOUSEMOTION, pos=tuple(map(float, each.split(",")))) for each in places]
events.insert(1, pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN))

def wait():
    if not events:
        print("at hand", flush=True)
        time.sleep(600)
    pygame.event.post(events.pop(0))

record(DemonstrateConfig(output=path), DemonstrationWindow(512, wait=wait), range(9))
"""


def test_a_killed_session_loses_the_episode_at_hand_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.zarr"
    places = [pusher_of(0), pusher_of(1), (200, 300), (300, 200)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), *(f"{x},{y}" for x, y in places)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SDL_VIDEODRIVER": "dummy"},
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    assert said[0].startswith(f"{path}: kept seed 0 ")
    assert said[1] == "at hand\n"
    assert starting_point(config(path)) == (1, 1)
    assert_replays(path, range(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "output=… is required"),
        (["output=''"], "output must name a store"),
        (["output=my.zarr", "seed=-1"], "seed must be in 0 … 4294967295, got -1"),
        (["output=my.zarr", "seed=4294967296"], "seed must be in 0 … 4294967295"),
        (["output=my.zarr", "max_steps=0"], "max_steps must be in 1 … 100000, got 0"),
        (["output=my.zarr", "size=10"], "size must be in 448 … 4096, got 10"),
        (["output=note.txt"], "note.txt: episodes are added to a store in a folder, which this is not"),
        (["output=folder"], "folder: "),
    ],
)
def test_bad_input_is_one_line_before_a_window_opens(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("note.txt").touch()
    Path("folder").mkdir()
    opened = []
    monkeypatch.setattr(pygame.display, "set_mode", opened.append)

    assert main(arguments) == 1

    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error
    assert not opened
    assert {path.name for path in tmp_path.iterdir()} == {"note.txt", "folder"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_without_a_screen_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert main([f"output={tmp_path}/my.zarr"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no screen for the window")
    assert "desktop session" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_without_pygame_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.delitem(sys.modules, "pusht_env.demonstration_window")
    assert main([f"output={tmp_path}/my.zarr"]) == 1
    assert capsys.readouterr().err == "error: the window needs pygame: pip install 'pcm_policy[sim]'\n"
    assert not list(tmp_path.iterdir())
