"""The origin of a result: code, command, machine."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

JOB: ContextVar[str] = ContextVar("JOB")
"""The command of the job of a sweep that this is, in place of the process's."""


def code_version() -> str:
    """The checkout's commit, with ``+changes`` if it is edited, or the package version where there is none."""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        try:
            return subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+changes"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return version("pcm_policy")


def command_line() -> str:
    """The command that started this process, or the job of a sweep, without the folders of this machine's programs."""
    if job := JOB.get(""):
        return job
    arguments = sys.orig_argv[1:]
    if arguments[:1] == ["-m"]:
        return shlex.join(["python", *arguments])
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def machine(device: torch.device) -> dict[str, Any]:
    """The machine, as far as timings depend on it."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
