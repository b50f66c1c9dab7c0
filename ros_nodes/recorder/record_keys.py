"""Keys in a terminal for a recorder: start, save and discard an episode."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_srvs.srv import Trigger

KEYS = {"s": "start", "e": "save", "d": "discard"}
QUIT = "q"
HELP = "s: start an episode, e: end and save it, d: discard it, q: quit"
PATIENCE = 30.0  # s, for a large bag to be saved


class RecordKeys(Node):
    """Calls the recorder's services.

    Args:
        recorder: name of the recorder, relative to this node's namespace.
    """

    def __init__(self, recorder: str = "recorder") -> None:
        super().__init__("record_keys")
        self._callers = {
            service: self.create_client(Trigger, f"{recorder}/{service}") for service in KEYS.values()
        }
        self._recorder = self.resolve_topic_name(recorder)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.status = "no recorder yet"

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._recorder:
                self.status = _line(status)

    def press(self, key: str) -> str:
        """What a key does; the recorder's answer."""
        if key not in KEYS:
            return HELP
        client = self._callers[KEYS[key]]
        if not client.service_is_ready():
            return f"no recorder answers as {self._recorder}"
        future = client.call_async(Trigger.Request())
        rclpy.spin_until_future_complete(self, future, timeout_sec=PATIENCE)
        answer: Any = future.result() if future.done() else None
        return "the recorder does not answer" if answer is None else str(answer.message)


def _line(status: DiagnosticStatus) -> str:
    """The recorder's status in one line."""
    values = {pair.key: pair.value for pair in status.values}
    said = [values.get("state", "")]
    if "episode" in values:
        said.append(f"{values['episode']}, {values['seconds']} s, {values['messages']} messages")
    said.append(f"{values.get('saved', '0')} saved, {values.get('discarded', '0')} discarded")
    if status.message != values.get("state"):
        said.append(status.message)
    return " | ".join(said)


@contextmanager
def _single_keys(terminal: int) -> Iterator[None]:
    """Let keys arrive without Enter, and unseen."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _serve(node: RecordKeys, terminal: int) -> None:
    print(HELP, flush=True)
    shown = ""
    while True:
        rclpy.spin_once(node, timeout_sec=0.05)
        if node.status != shown:
            shown = node.status
            print(f"\r\x1b[K{shown}", end="", flush=True)
        if not select.select([terminal], [], [], 0)[0]:
            continue
        key = os.read(terminal, 1).decode(errors="replace")
        if key in ("", QUIT):
            return
        print(f"\r\x1b[K{node.press(key)}", flush=True)
        shown = ""


def main(args: Sequence[str] | None = None) -> int:
    """Listen to the terminal until q or an interrupt."""
    terminal = sys.stdin.fileno()
    if not os.isatty(terminal):
        print(
            "record_keys needs a terminal; without one: ros2 service call /recorder/start std_srvs/srv/Trigger"
        )
        return 1
    rclpy.init(args=args)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    node = RecordKeys()
    try:
        with _single_keys(terminal):
            _serve(node, terminal)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        print()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
