"""Measure what joint_trajectory_controller makes of chunks that replace one another, and write a table.

python -m ros_nodes.seams --demonstrations pusht_cchi_v7_replay.zarr
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import rclpy
import torch
import yaml
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from tqdm import tqdm

from policy.atomic_write import atomic_write
from ros_nodes.commands.chunk_points import points_to_come
from ros_nodes.seams.controller import CONTROLLER, ControllerPeer, Recording
from ros_nodes.seams.demonstrations import first_demonstrations, would_be_seams
from ros_nodes.seams.plot import plot_commands
from ros_nodes.seams.policy_chunks import CHECKPOINT, recorded_chunks
from ros_nodes.seams.report import LATENCIES_MS, WINDOW, Case, Measurement, format_report
from ros_nodes.seams.synthetic_chunks import (
    ALL_VELOCITIES,
    BEFORE,
    BLEND,
    CHUNK,
    INPAINT,
    NOW,
    PERIOD,
    TAIL,
    Publication,
    horizon,
    interval,
    points,
)
from ros_nodes.seams.velocity_jumps import velocity_jumps
from training.provenance import code_version, command_line, machine

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "ros2_control.launch.py"
SETTINGS = REPOSITORY / "config" / "ros2_control.yaml"
LOG = "log.txt"
DRIFT = 10.0
"""Standard deviation of point 8 in px, about the shipped policy's."""
BOTH = (NOW, TAIL)
CASES: dict[bool, tuple[tuple[float | None, Publication], ...]] = {
    False: (
        *((0.0, publication) for publication in (BEFORE, *BOTH)),
        *((DRIFT, publication) for publication in (BEFORE, ALL_VELOCITIES, *BOTH)),
        *((None, publication) for publication in (BEFORE, *BOTH, BLEND, INPAINT)),
    ),
    True: tuple((DRIFT, publication) for publication in BOTH),
}
"""By the setting interpolate_from_desired_state: drifts, None for the policy's own, and what is published."""
DEMONSTRATED_SECONDS = 120.0
HAND_OVERS = dict.fromkeys(
    publication.hand_over for cases in CASES.values() for drift, publication in cases if drift is None
)
SETTLING = 2
"""Chunks at the beginning that do not count: the controller comes from elsewhere."""


def measure(
    peer: ControllerPeer, case: Case, chunks: Iterable[tuple[float, NDArray[np.float64]]], *, begin: float
) -> Measurement:
    """Send chunk after chunk, and look at what the controller made of them.

    Args:
        chunks: times in s of observations, and the horizons that are predicted from them.
        begin: time in s from which the plot counts.
    """
    latency = case.latency_ms / 1e3
    published: list[float] = []
    for stamp, actions in chunks:
        peer.spin_until(partial(_has_come, peer, stamp + latency))
        if len(published) == SETTLING:
            peer.recording = Recording()
        now = peer.now()
        peer.send(
            points(actions, case.publication, stamp_ns=round(stamp * 1e9), published_ns=round(now * 1e9))
        )
        published.append(now)
    peer.spin_until(partial(_has_come, peer, published[-1] + WINDOW))
    times, positions = peer.recording.commanded()
    seams = np.array(published[SETTLING:])
    return Measurement(
        case=case,
        jumps=velocity_jumps(times, positions, seams=seams.tolist(), seconds=WINDOW),
        error=max(peer.recording.errors),
        times=times - begin,
        positions=positions,
        seams=seams - begin,
    )


def measure_demonstration(peer: ControllerPeer, actions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Velocity jumps in px/s of a demonstration (T, 2) that is sent as one trajectory, where seams could be."""
    peer.recording = Recording()
    begin, period_ns = peer.now(), round(PERIOD * 1e9)
    peer.send(
        points_to_come(
            actions,
            begin=0,
            count=len(actions),
            velocities=True,
            stamp_ns=round(begin * 1e9),
            period_ns=period_ns,
        )
    )
    over = begin + len(actions) * PERIOD
    peer.spin_until(partial(_has_come, peer, over), seconds=over - begin + 60)
    seams = would_be_seams(begin + SETTLING * CHUNK * PERIOD, over - WINDOW)
    return velocity_jumps(*peer.recording.commanded(), seams=seams, seconds=WINDOW)


def _synthetic(case: Case, begin: float, seconds: float) -> Iterator[tuple[float, NDArray[np.float64]]]:
    rng, stamp = np.random.default_rng(0), begin
    while stamp < begin + seconds:
        yield stamp, horizon(stamp, drift=case.drift or 0.0, rng=rng)
        stamp += interval(case.latency_ms / 1e3)


def _has_come(peer: ControllerPeer, time: float) -> bool:
    return peer.now() >= time


def run(
    seconds: float, folder: Path, *, checkpoint: Path, demonstrations: Sequence[NDArray[np.float64]]
) -> tuple[list[Measurement], NDArray[np.float64]]:
    """Launch the controller with each setting and measure all cases, each for so many seconds.

    Args:
        checkpoint: of the policy whose chunks are sent, beside those along a circle.
        demonstrations: actions (T, 2) in px of each, whose own jumps are measured, too.
        folder: for the log and the controller's settings.

    Returns:
        The cases, and the demonstrations' velocity jumps in px/s.

    Raises:
        RuntimeError: if the controller does not come up.
    """
    # A shell lets its background jobs ignore Ctrl-C, and `ros2 launch` ignores what it is started to ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    recorded = {
        (latency, hand_over): recorded_chunks(
            checkpoint, latency=latency / 1e3, steps=round(seconds / PERIOD), hand_over=hand_over
        )
        for latency, hand_over in product(LATENCIES_MS, HAND_OVERS)
    }
    rclpy.init(args=[])
    peer = ControllerPeer()
    measurements = []
    own: list[NDArray[np.float64]] = []
    cases = sum(map(len, CASES.values())) * len(LATENCIES_MS)
    progress = tqdm(total=cases + len(demonstrations), desc="cases")
    try:
        for from_desired, drifts in CASES.items():
            with _controller(folder, from_desired):
                peer.wait_for_controller()
                for actions in () if from_desired else demonstrations:
                    own.append(measure_demonstration(peer, actions))
                    progress.update()
                for (drift, publication), latency in product(drifts, LATENCIES_MS):
                    case = Case(
                        from_desired=from_desired, drift=drift, publication=publication, latency_ms=latency
                    )
                    begin = peer.now()
                    chunks = (
                        _synthetic(case, begin, seconds)
                        if drift is not None
                        else [
                            (begin + step * PERIOD, actions)
                            for step, actions in recorded[latency, publication.hand_over]
                        ]
                    )
                    measurements.append(measure(peer, case, chunks, begin=begin))
                    progress.update()
    finally:
        peer.destroy_node()
        rclpy.try_shutdown()
    return measurements, np.concatenate([[], *own])


@contextmanager
def _controller(folder: Path, from_desired: bool) -> Iterator[None]:
    """A running controller with the shipped settings, but for this one, and without tolerances."""
    content = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    parameters = content[CONTROLLER]["ros__parameters"]
    parameters["interpolate_from_desired_state"] = from_desired
    del parameters["constraints"]
    settings = folder / "ros2_control.yaml"
    settings.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = ["ros2", "launch", str(LAUNCH_FILE), f"controllers_file:={settings}"]
    with open(folder / LOG, "ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGINT)  # all of them, as Ctrl-C in a terminal
            process.wait(timeout=120)


def _origin() -> str:
    of = machine(torch.device("cpu"))
    return (
        f"`{command_line()}` on {of['device']}, {of['cores']} cores, ROS 2 {os.environ.get('ROS_DISTRO')}, code "
        f"{code_version()}."
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of each case (default: 20)")
    parser.add_argument(
        "--demonstrations",
        type=Path,
        help="zarr store whose first 2 minutes are sent as they are, to compare",
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="whose chunks are sent as well")
    parser.add_argument("--output", type=Path, default=Path("outputs/seams/joint_trajectory_controller.md"))
    options = parser.parse_args(arguments)
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        demonstrations = []
        if options.demonstrations is not None:
            demonstrations = first_demonstrations(options.demonstrations, seconds=DEMONSTRATED_SECONDS)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                measurements, own = run(
                    options.seconds, folder, checkpoint=options.checkpoint, demonstrations=demonstrations
                )
            except RuntimeError as error:
                log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{error}\n{log[-2000:]}") from None
        picture = options.output.with_suffix(".png")
        plot_commands(measurements, picture)
        page = format_report(measurements, own=own, origin=_origin(), picture=picture.name)
        with atomic_write(options.output) as temporary:
            temporary.write_text(page, encoding="utf-8")
        print(page)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    except (RuntimeError, ValueError, OSError) as error:  # a DemonstrationError is a ValueError
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
