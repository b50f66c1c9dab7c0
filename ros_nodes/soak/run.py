"""A soak test: episodes in real time, with memory, latency, deadlines and services watched.

python -m ros_nodes.soak --minutes 30 --output-dir outputs/soak solver:=ddim steps:=10
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import rclpy
import torch
from rclpy.executors import ExternalShutdownException

from policy.atomic_write import atomic_write
from pusht_env.physics import CONTROL_HZ
from ros_nodes.soak.observer import SoakObserver
from ros_nodes.soak.report import (
    Sample,
    duration_report,
    format_report,
    load_report,
    logged_faults,
    memory_report,
)
from training.evaluation.summary import format_interval, smoothness_summary, write_summary
from training.provenance import code_version, command_line, machine

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "pusht.launch.py"
WATCHED = ("policy_node", "pusht_simulator_node", "episode_runner")


def memory_of_children(parent: int) -> dict[str, float]:
    """Resident memory in MiB of a process's children, by executable."""
    memory = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = (status.parent / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it ended meanwhile
            continue
        names = [name for name in WATCHED if any(Path(part).name == name for part in command)]
        if fields["PPid"] == str(parent) and names and "VmRSS" in fields:
            memory[names[0]] = int(fields["VmRSS"].split()[0]) / 1024
    return memory


def soak(
    *,
    minutes: float | None,
    episodes: int | None,
    output_dir: Path,
    launch_arguments: list[str],
    sample_seconds: float,
) -> str:
    """Run the launch file in real time, write the report, and return it as Markdown.

    Args:
        minutes: duration from the first episode on; None for all episodes.
        episodes: number of episodes; None for no limit.
        output_dir: folder of the report, and of the log and the summary of the episodes.
        launch_arguments: arguments name:=value of the launch file.
        sample_seconds: time between two looks at the memory.

    Raises:
        RuntimeError: if the launch ends too soon, or before the first episode is over.
    """
    # A shell lets its background jobs ignore Ctrl-C, and `ros2 launch` ignores what it is started to ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output_dir.mkdir(parents=True, exist_ok=True)
    # A summary of an earlier run must not be taken for one of this run.
    (output_dir / "summary.json").unlink(missing_ok=True)
    settings = ["mode:=realtime", f"episodes:={episodes or 10**6}", f"output_dir:={output_dir}"]
    command = ["ros2", "launch", str(LAUNCH_FILE), *settings, *launch_arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    samples: list[Sample] = []
    seconds, next_sample = 0.0, sample_seconds
    rclpy.init(args=[])
    observer = SoakObserver()
    with open(output_dir / "log.txt", "wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "PATH": path}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while process.poll() is None:
                rclpy.spin_once(observer, timeout_sec=0.5)
                if not observer.has_begun:
                    started = time.monotonic()
                seconds = time.monotonic() - started
                if minutes is not None and seconds >= 60 * minutes:
                    break
                if seconds >= next_sample:
                    next_sample += sample_seconds
                    memory = memory_of_children(process.pid)
                    if memory.keys() == set(WATCHED):  # one that ends has less and less of it
                        samples.append(Sample(seconds, memory, os.getloadavg()[0]))
        finally:
            ended = process.poll()
            if ended is None:
                os.killpg(process.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
                process.wait(timeout=120)
            observer.destroy_node()
            rclpy.try_shutdown()
    if ended is not None and (ended != 0 or episodes is None):
        raise RuntimeError(f"the launch ended with {ended}, see {output_dir / 'log.txt'}")
    if not (output_dir / "summary.json").exists():
        raise RuntimeError("too short a soak, no episode was over")
    summary = json.loads((output_dir / "summary.json").read_text())
    during = observer.answers_while_computing()
    report = {
        "minutes": seconds / 60,
        "episodes": len(summary["episodes"]),
        "failures": summary["failures"],
        "rewards": {str(row["seed"]): row["max_reward"] for row in summary["episodes"]},
        "mean_max_reward": summary["mean_max_reward"],
        "mean_max_reward_ci95": summary["mean_max_reward_ci95"],
        "success_rate": summary["success_rate"],
        "smoothness": smoothness_summary(
            observer.commands.jumps,
            [np.array(commands) for commands in observer.commands.episodes],
            rate=CONTROL_HZ,
            unit="_px",
        ),
        "policy_parameters": summary["policy_parameters"],
        "memory": memory_report(samples, WATCHED),
        "load": load_report(samples),
        "faults": logged_faults((output_dir / "log.txt").read_text(encoding="utf-8", errors="replace")),
        "services": {
            "unanswered": observer.unanswered(),
            "all": duration_report([answer.seconds for answer in observer.answers]),
            "while a chunk was computed": duration_report([answer.seconds for answer in during]),
        },
        "diagnostics": observer.diagnostics,
        "command": command_line(),
        "launch": " ".join(["ros2 launch pcm_policy pusht.launch.py", *command[3:]]),
        "ros": os.environ.get("ROS_DISTRO"),
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "code": code_version(),
        "machine": machine(torch.device("cpu")),
        "samples": [asdict(sample) for sample in samples],
    }
    write_summary(output_dir / "soak.json", report)
    page = format_report(report, format_interval(report["mean_max_reward_ci95"]))
    with atomic_write(output_dir / "soak.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="duration; 30 if neither is given")
    length.add_argument("--episodes", type=int, help="number of episodes, instead of a duration")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/soak"))
    parser.add_argument("--sample-seconds", type=float, default=10.0)
    parser.add_argument("launch_arguments", nargs="*", help="name:=value, arguments of pusht.launch.py")
    options = parser.parse_args(arguments)
    minutes = 30.0 if options.minutes is None and options.episodes is None else options.minutes
    try:
        page = soak(
            minutes=minutes,
            episodes=options.episodes,
            output_dir=options.output_dir,
            launch_arguments=options.launch_arguments,
            sample_seconds=options.sample_seconds,
        )
        print(page)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
