"""A ROS graph with processes that pytest's tests start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked_program import ForkedProgram
from ros_graph import LOCAL, PATIENCE, RosGraph, free_domain

REPOSITORY = Path(__file__).resolve().parents[2]

Process = subprocess.Popen[bytes] | ForkedProgram


def environment(domain: int, log_dir: Path) -> dict[str, str]:
    """Of the processes of a graph."""
    return {
        **os.environ,
        **LOCAL,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_LOG_DIR": str(log_dir),
        "PYTHONUNBUFFERED": "1",
        # Launch files start what is installed in the environment that runs the tests.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(
            [str(REPOSITORY), str(REPOSITORY / "tests" / "environments"), os.environ.get("PYTHONPATH", "")]
        ),
        # Each process on its own core or part of one: threads that wait for each other only spin.
        "OMP_NUM_THREADS": "1",
    }


class ProcessGraph(RosGraph):
    """A ROS graph of its own: processes, and a node in this one to listen and call.

    Args:
        log_dir: where the processes' output goes.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        domain = free_domain()
        super().__init__(domain)
        # A shell lets its background jobs ignore Ctrl-C, and `ros2 launch` ignores what it is started to ignore.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.env = environment(domain, log_dir)
        self.processes: list[Process] = []

    def start(self, *command: str, **parameters: Any) -> Process:
        """Start a process.

        Args:
            command: a module of `ros_nodes`, a Python file or any other executable, and its arguments.
            parameters: of the node, for a module or a file.
        """
        log = self.log_dir / f"{len(self.processes)}.log"
        process: Process
        if command[0].startswith("ros_nodes.") or command[0].endswith(".py"):
            program, *arguments = (*command, "--ros-args")
            for name, value in parameters.items():
                text = str(value).lower() if isinstance(value, bool) else str(value)
                arguments += ["-p", f"{name.replace('__', '.')}:={text}"]
            process = ForkedProgram(program, arguments, env=self.env, folder=self.log_dir, log=log)
        else:
            with open(log, "wb") as output:
                process = subprocess.Popen(
                    command,
                    env=self.env,
                    cwd=self.log_dir,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        self.processes.append(process)
        return process

    def output(self, process: Process) -> str:
        return (self.log_dir / f"{self.processes.index(process)}.log").read_text(errors="replace")

    def logs(self) -> str:
        return "\n".join(f"--- {p.args!r}\n{self.output(p)[-2000:]}" for p in self.processes)

    def run(self, *command: str, timeout: float = PATIENCE) -> str:
        """Run a process to its end, whose status must be 0, while this one's node goes on; returns its output."""
        process = self.start(*command)
        self.spin_until(lambda: process.poll() is not None, f"{' '.join(command)} ends", timeout)
        assert process.returncode == 0, f"{command} ended with {process.returncode}\n{self.output(process)}"
        return self.output(process)

    def stop(self, process: Process, sent: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        process.send_signal(sent)
        return process.wait(PATIENCE)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        super().close()
