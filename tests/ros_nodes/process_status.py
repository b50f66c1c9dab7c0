"""What the kernel says of a process."""

from __future__ import annotations

from pathlib import Path


def memory(process: int) -> int:
    """Resident memory in bytes."""
    return _number(process, "VmRSS") * 1024


def threads(process: int) -> int:
    return _number(process, "Threads")


def _number(process: int, key: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
