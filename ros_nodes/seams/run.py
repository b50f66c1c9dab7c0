"""Measure what joint_trajectory_controller makes of chunks that replace one another, and write a table.

python -m ros_nodes.seams --output docs/results/cpu/joint_trajectory_controller.md
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rclpy
import torch
from rclpy.executors import ExternalShutdownException
from tqdm import tqdm

from policy.atomic_write import atomic_write
from ros_nodes.seams.controller import ControllerPeer, Recording
from ros_nodes.seams.report import LATENCIES_MS, WINDOW, Measurement, format_report
from ros_nodes.seams.synthetic_chunks import (
    ALL_VELOCITIES,
    BEFORE,
    NOW,
    TAIL,
    Publication,
    horizon,
    interval,
    points,
)
from ros_nodes.seams.velocity_jumps import velocity_jumps
from training.provenance import code_version, command_line, machine

LAUNCH_FILE = Path(__file__).resolve().parents[2] / "launch" / "ros2_control.launch.py"
DRIFT = 10.0
"""Standard deviation of point 8 in px, about the shipped policy's."""
CASES = tuple((0.0, publication) for publication in (BEFORE, NOW, TAIL)) + tuple(
    (DRIFT, publication) for publication in (BEFORE, ALL_VELOCITIES, NOW, TAIL)
)
SETTLING = 2
"""Chunks at the beginning that do not count: the controller comes from elsewhere."""


def measure(
    peer: ControllerPeer, drift: float, publication: Publication, *, latency_ms: int, seconds: float
) -> Measurement:
    """Send chunk after chunk, and look at what the controller made of them."""
    latency, rng = latency_ms / 1e3, np.random.default_rng(0)
    begin = stamp = peer.now()
    published: list[float] = []
    while stamp < begin + seconds:
        actions = horizon(stamp, drift=drift, rng=rng)
        peer.spin_until(lambda due=stamp + latency: peer.now() >= due)  # type: ignore[misc]
        if len(published) == SETTLING:
            peer.recording = Recording()
        now = peer.now()
        peer.send(points(actions, publication, stamp_ns=round(stamp * 1e9), published_ns=round(now * 1e9)))
        published.append(now)
        stamp += interval(latency)
    end = published[-1] + WINDOW
    peer.spin_until(lambda: peer.now() >= end)
    times, positions = peer.recording.commanded()
    jumps = velocity_jumps(times, positions, seams=published[SETTLING:], seconds=WINDOW)
    error = max(peer.recording.errors)
    return Measurement(drift=drift, publication=publication, latency_ms=latency_ms, jumps=jumps, error=error)


def run(seconds: float, log: Path) -> list[Measurement]:
    """Launch the controller and measure all cases, each for so many seconds.

    Raises:
        RuntimeError: if the controller does not come up.
    """
    # A shell lets its background jobs ignore Ctrl-C, and `ros2 launch` ignores what it is started to ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rclpy.init(args=[])
    peer = ControllerPeer()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["ros2", "launch", str(LAUNCH_FILE)], stdout=output, stderr=output, start_new_session=True
        )
        try:
            peer.wait_for_controller()
            peer.set_path_tolerance(0.0)
            cases = [(*case, latency) for case in CASES for latency in LATENCIES_MS]
            return [
                measure(peer, drift, publication, latency_ms=latency, seconds=seconds)
                for drift, publication, latency in tqdm(cases, desc="cases")
            ]
        finally:
            os.killpg(process.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
            process.wait(timeout=120)
            peer.destroy_node()
            rclpy.try_shutdown()


def _origin() -> str:
    of = machine(torch.device("cpu"))
    return (
        f"`{command_line()}` on {of['device']}, {of['cores']} cores, ROS 2 {os.environ.get('ROS_DISTRO')}, code "
        f"{code_version()}."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each case")
    parser.add_argument("--output", type=Path, default=Path("outputs/seams/joint_trajectory_controller.md"))
    options = parser.parse_args(arguments)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.txt"
            try:
                measurements = run(options.seconds, log)
            except RuntimeError as error:
                raise RuntimeError(f"{error}\n{log.read_text(errors='replace')[-2000:]}") from None
        page = format_report(measurements, origin=_origin())
        with atomic_write(options.output) as temporary:
            temporary.write_text(page, encoding="utf-8")
        print(page)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
