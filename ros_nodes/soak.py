"""A soak test: episodes in real time for a long time, with memory, latency and deadlines watched.

python -m ros_nodes.soak --minutes 30 --output-dir outputs/soak sampler:=ddim steps:=10
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray

from training.evaluate import write_summary
from training.provenance import code_version, machine

LAUNCH_FILE = Path(__file__).resolve().parents[1] / "launch" / "pusht.launch.py"
WATCHED = ("policy_node", "pusht_simulator_node", "episode_runner")
SETTLED_SHARE = 0.25
"""Of the samples, the first ones, in which memory may still grow: caches fill, libraries load."""


@dataclass(frozen=True)
class Sample:
    """The processes at one time: seconds since the start, and resident memory in MiB by executable."""

    seconds: float
    memory: dict[str, float]


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
        if fields["PPid"] == str(parent) and names:
            memory[names[0]] = int(fields["VmRSS"].split()[0]) / 1024
    return memory


def growth(samples: list[Sample], name: str) -> float:
    """MiB per hour by which a process grew after it had settled: the slope of a line through its samples."""
    settled = [s for s in samples[round(SETTLED_SHARE * len(samples)) :] if name in s.memory]
    if len(settled) < 2:
        raise RuntimeError(f"{name} was seen {len(settled)} times, too short a soak")
    hours = np.array([sample.seconds for sample in settled]) / 3600
    return float(np.polyfit(hours, [sample.memory[name] for sample in settled], 1)[0])


def soak(
    minutes: float, output_dir: Path, launch_arguments: list[str], sample_seconds: float
) -> dict[str, Any]:
    """Run the launch file in real time; returns and writes what was seen.

    Raises:
        RuntimeError: if a process ends before its time.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    settings = ["mode:=realtime", "episodes:=100000", f"output_dir:={output_dir}", *launch_arguments]
    command = ["ros2", "launch", str(LAUNCH_FILE), *settings]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    diagnostics: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        diagnostics.update({pair.key: pair.value for status in message.status for pair in status.values})

    rclpy.init()
    node = rclpy.create_node("soak")
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    samples: list[Sample] = []
    with open(output_dir / "log.txt", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            started = time.monotonic()
            while (seconds := time.monotonic() - started) < 60 * minutes:
                if process.poll() is not None:
                    raise RuntimeError(f"ended after {seconds:.0f} s, see {output_dir / 'log.txt'}")
                rclpy.spin_once(node, timeout_sec=0.5)
                if seconds >= sample_seconds * (len(samples) + 1):
                    samples.append(Sample(seconds, memory_of_children(process.pid)))
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
            node.destroy_node()
            rclpy.try_shutdown()
    return _report(minutes, command, samples, diagnostics, output_dir)


def _report(
    minutes: float, command: list[str], samples: list[Sample], diagnostics: dict[str, str], output_dir: Path
) -> dict[str, Any]:
    episodes = json.loads((output_dir / "summary.json").read_text())
    memory = {
        name: {
            "settled_mib": samples[round(SETTLED_SHARE * len(samples))].memory[name],
            "end_mib": samples[-1].memory[name],
            "growth_mib_per_hour": growth(samples, name),
        }
        for name in WATCHED
    }
    report = {
        "minutes": minutes,
        "episodes": len(episodes["episodes"]),
        "failures": episodes["failures"],
        "mean_max_reward": episodes["mean_max_reward"],
        "mean_max_reward_ci95": episodes["mean_max_reward_ci95"],
        "memory": memory,
        "diagnostics": diagnostics,
        "command": " ".join(["python -m ros_nodes.soak", *sys.argv[1:]]),
        "launch": " ".join(["ros2 launch pcm_policy pusht.launch.py", *command[3:]]),
        "ros": os.environ.get("ROS_DISTRO"),
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "code": code_version(),
        "machine": machine(torch.device("cpu")),
        "samples": [asdict(sample) for sample in samples],
    }
    write_summary(output_dir / "soak.json", report)
    (output_dir / "soak.md").write_text(format_report(report), encoding="utf-8")
    return report


def format_report(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    seen = report["diagnostics"]
    where = report["machine"]
    lines = [
        f"# {report['minutes']:g} minutes in real time",
        "",
        f"`{report['command']}` on {where['device']}, {where['cores']} cores, ROS 2 {report['ros']} with "
        f"{report['rmw']}, code {report['code']}.",
        "",
        f"{report['episodes']} episodes, {len(report['failures'])} failed, mean maximum reward "
        f"{report['mean_max_reward']:.3f}.",
        "",
        "| | p50 | p95 | p99 |",
        "|---|---|---|---|",
    ]
    for name, text in (
        ("latency", "observation to chunk, ms"),
        ("inference", "inference, ms"),
        ("overhead", "the node's part beyond inference, ms"),
    ):
        values = " | ".join(seen[f"{name}_p{percent}_ms"] for percent in (50, 95, 99))
        lines.append(f"| {text} | {values} |")
    lines += [
        "",
        f"{seen['chunks']} chunks, {seen['deadline_misses']} deadline misses, {seen['rejected_observations']} "
        f"rejected observations, {seen['clamped_points']} clamped points. Latencies are of the last 1000 chunks.",
        "",
        f"| process | MiB after {SETTLED_SHARE:.0%} of the time | MiB at the end | growth in MiB per hour |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {used['settled_mib']:.1f} | {used['end_mib']:.1f} | {used['growth_mib_per_hour']:.2f} |"
        for name, used in report["memory"].items()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/soak"))
    parser.add_argument("--sample-seconds", type=float, default=10.0)
    parser.add_argument("launch_arguments", nargs="*", help="name:=value, as of pusht.launch.py")
    options = parser.parse_args(arguments)
    try:
        report = soak(options.minutes, options.output_dir, options.launch_arguments, options.sample_seconds)
        print(format_report(report))
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
