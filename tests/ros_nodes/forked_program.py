"""A Python program, forked from a process that has imported PyTorch and rclpy: that is most of a node's start."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(["policy.runtime", "rclpy", "control_msgs.action", "sensor_msgs.msg"])


class ForkedProgram:
    """A process as `subprocess.Popen` shows one, in a session of its own, that ends as the interpreter does.

    Args:
        program: module or file to run as `__main__`.
        arguments: its `sys.argv[1:]`.
        env: the whole environment; `PYTHONPATH` comes first in `sys.path`, as at a start.
        folder: working directory.
        log: file that gets its output and errors.
    """

    def __init__(
        self, program: str, arguments: Sequence[str], *, env: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.args = [program, *arguments]
        log.touch()  # it is there as soon as the process is
        self._process = FORK_SERVER.Process(
            target=_run, args=(program, list(arguments), dict(env), folder, log)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, sent: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, sent)


def _run(program: str, arguments: list[str], env: dict[str, str], folder: Path, log: Path) -> None:
    gc.freeze()  # the end would otherwise look through all that PyTorch brings, several times
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[:0] = env.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv[1:] = arguments
    # multiprocessing would leave by `os._exit`, which hides what goes wrong at the end of an interpreter.
    ctypes.pythonapi.Py_Exit(_status(program))


def _status(program: str) -> int:
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
