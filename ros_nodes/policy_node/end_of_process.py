"""How a process is told to end while ROS can still be used, which rclpy's own handling of signals does not allow."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def on_end(callback: Callable[[], object]) -> None:
    """Let a callback be called once in a thread of its own, as soon as the process is interrupted or terminated.

    Python's handlers wait until the main thread comes back from what it waits for, which rclpy does in C. So they do
    nothing, and a thread listens where the interpreter writes when a signal comes.
    """
    listening, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)

    def listen() -> None:
        os.read(listening, 1)
        callback()

    threading.Thread(target=listen, name="end of process", daemon=True).start()


def ignore_signals() -> None:
    """Let nothing interrupt the end of a process: Python gives its own handlers up before it is over."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
