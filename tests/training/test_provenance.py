from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from training.provenance import code_version, machine

PRINT_COMMAND = "from training.provenance import command_line; print(command_line())"


def test_command_can_be_typed_again(tmp_path: Path) -> None:
    (tmp_path / "pcm-tool").write_text(PRINT_COMMAND)
    (tmp_path / "tool.py").write_text(PRINT_COMMAND)

    def run(*command: str) -> str:
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.strip()

    assert run(str(tmp_path / "pcm-tool"), "key=a b") == "pcm-tool 'key=a b'"
    assert run("-m", "tool", "key=1") == "python -m tool key=1"


def test_code_version_is_this_checkouts_commit() -> None:
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        assert code_version().removesuffix("+changes") == head.stdout[:12]
    else:
        assert code_version()[0].isdigit()


def test_machine_names_what_timings_depend_on() -> None:
    about = machine(torch.device("cpu"))
    assert about["torch"] == torch.__version__
    assert about["threads"] == torch.get_num_threads()
    assert about["device"]
