"""The recorder as people start it, and its keys in a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ros_graph import PATIENCE

pytest.importorskip("rosbag2_py", reason="needs rosbag2 (ros-jazzy-rosbag2)")

ROOT = Path(__file__).resolve().parents[3]
LAUNCH_FILE = str(ROOT / "launch" / "record.launch.py")


class Keys:
    """`record_keys` in a terminal of its own."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.terminal, inner = pty.openpty()
        os.set_blocking(self.terminal, False)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ros_nodes.recorder.record_keys", "--ros-args", "-r", "__ns:=/left"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=graph.env,
            start_new_session=True,
        )
        os.close(inner)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        def is_shown() -> bool:
            with suppress(OSError):  # nothing new, or the process has ended
                self.shown += os.read(self.terminal, 65536).decode(errors="replace")
            return text in self.shown

        self.graph.spin_until(is_shown, f"{text!r} in the terminal, which shows {self.shown!r}")

    def press(self, key: str) -> None:
        self.shown = ""
        os.write(self.terminal, key.encode())


@pytest.fixture
def keys(graph: Any) -> Iterator[Keys]:
    keys = Keys(graph)
    yield keys
    if keys.process.poll() is None:
        keys.process.kill()
    keys.process.wait()
    os.close(keys.terminal)


def test_keys_start_save_and_discard_episodes_of_a_launched_recorder(
    graph: Any, keys: Keys, tmp_path: Path
) -> None:
    keys.wait_for("s: start an episode, e: end and save it, d: discard it, q: quit")
    keys.press("s")
    keys.wait_for("no recorder answers as /left/recorder")
    launched = graph.start(
        "ros2",
        "launch",
        LAUNCH_FILE,
        f"robot:={ROOT / 'config' / 'pusht.yaml'}",
        f"output:={tmp_path / 'episodes'}",
        "namespace:=left",
        "insist:=true",
        "storage:=sqlite3",
    )
    keys.wait_for("idle | 0 saved, 0 discarded | keypoints: nothing received on block/keypoints")
    keys.press("s")
    keys.wait_for("recording episode_0000, although keypoints: nothing received")
    keys.press("d")
    keys.wait_for("discarded episode_0000")
    keys.press("s")
    keys.wait_for("recording episode_0000")
    keys.wait_for("recording | episode_0000, ")
    keys.press("e")
    keys.wait_for("saved ")
    assert (tmp_path / "episodes" / "episode_0000" / "episode_0000_0.db3").exists()
    keys.press("x")
    keys.wait_for("s: start an episode")
    keys.press("q")
    assert keys.process.wait(PATIENCE) == 0
    assert "in another terminal: ros2 run pcm_policy record_keys --ros-args -r __ns:=/left" in graph.output(
        launched
    )
    os.killpg(launched.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
    assert launched.wait(PATIENCE) == 0
    assert "Traceback" not in graph.output(launched)


def test_keys_need_a_terminal(graph: Any) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "ros_nodes.recorder.record_keys"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=graph.env,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout.startswith("record_keys needs a terminal; without one: ros2 service call")


def test_a_launch_that_cannot_record_ends_with_an_error(graph: Any) -> None:
    cases = {
        "record.launch.py needs robot:=…": ["output:=out"],
        "the recorder cannot record; the reason is in its log above": ["robot:=nowhere.yaml", "output:=out"],
    }
    launches = {
        message: graph.start("ros2", "launch", LAUNCH_FILE, *arguments)
        for message, arguments in cases.items()
    }
    for message, launched in launches.items():
        graph.spin_until(lambda launched=launched: launched.poll() is not None, "the launch ends")
        assert launched.returncode == 1
        assert message in graph.output(launched)
