"""A policy server that tests start, kill and start again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("policy_server.py")


class ServerProcess:
    """`policy_server.py` in a process of its own, at one port whatever becomes of it.

    Args:
        checkpoint: policy.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.port = 0
        self.start(checkpoint)

    def start(self, checkpoint: Path) -> None:
        command = [sys.executable, str(PROGRAM), str(checkpoint), str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[3])}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
