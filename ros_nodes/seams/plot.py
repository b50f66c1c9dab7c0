"""What the controller commanded over time, with the seams between the policy's chunks marked. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from policy.atomic_write import atomic_write
from ros_nodes.seams.report import Measurement
from ros_nodes.seams.synthetic_chunks import BEFORE, NOW, TAIL

LATENCY_MS = 150
SHOWN = (BEFORE, NOW, TAIL)


def plot_commands(measurements: Sequence[Measurement], path: Path) -> None:
    """One pair of axes for each way to send the policy's chunks at a latency of 150 ms."""
    shown = {
        measurement.case.publication: measurement
        for measurement in measurements
        if measurement.case.drift is None and measurement.case.latency_ms == LATENCY_MS
    }
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(len(SHOWN), 1, sharex=True, sharey=True)
    for axis, publication in zip(axes, SHOWN, strict=True):
        measurement = shown[publication]
        for name, positions in zip("xy", measurement.positions.T, strict=True):
            axis.plot(measurement.times, positions, linewidth=1, label=name)
        for index, seam in enumerate(measurement.seams):
            label = "a chunk is published" if index == 0 else None
            axis.axvline(seam, color="0.8", linewidth=0.8, zorder=0, label=label)
        axis.set_title(publication.name, fontsize="medium")
        axis.set_ylabel("commanded (px)")
    axes[0].legend(loc="best")
    axes[-1].set_xlabel("time (s)")
    figure.suptitle(f"The shipped policy through joint_trajectory_controller, latency {LATENCY_MS} ms")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
