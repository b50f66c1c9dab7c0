"""The table of velocity jumps at seams, as Markdown. Knows no ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ros_nodes.seams.synthetic_chunks import RADIUS, SPEED, Publication

LATENCIES_MS = (0, 50, 150, 300)
WINDOW = 0.2
"""Seconds after a publication that belong to the seam."""

PAGE = f"""# Chunks through joint_trajectory_controller

ros2_controllers' `joint_trajectory_controller` on mock hardware at 100 Hz, with the settings of `config/ros2_control.yaml`
but without tolerances. It is fed chunks of 8 points, 0.1 s apart, along a circle of {RADIUS:g} px at {SPEED:g} px/s, as a policy
would send them with a latency; each comes 0.05 s to 0.15 s before the one before it is over.

A seam's velocity jump is the largest change of the wanted velocity from one update of the controller to the next, within
{WINDOW:g} s after the chunk's publication. The circle itself makes {SPEED**2 / RADIUS / 100:.0f} px/s. The last columns are how far a joint was
at most from where the controller wanted it: a path tolerance below that stops the robot.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """One case.

    Attributes:
        drift: as of `synthetic_chunks.horizon`.
        publication: what was sent.
        latency_ms: from observation to publication.
        jumps: (S,) px/s.
        error: largest distance in px of a joint from where the controller wanted it.
    """

    drift: float
    publication: Publication
    latency_ms: int
    jumps: NDArray[np.float64]
    error: float


def format_report(measurements: Sequence[Measurement], *, origin: str) -> str:
    """The page, with a table for each drift."""
    parts = [PAGE, f"{origin}\n"]
    for drift in sorted({measurement.drift for measurement in measurements}):
        told = f"drift apart: point 8 is off by {drift:g} px (standard deviation)" if drift else "agree"
        parts.append(f"## Chunks that {told}\n")
        parts.append(_table([measurement for measurement in measurements if measurement.drift == drift]))
    return "\n".join(parts)


def _table(measurements: Sequence[Measurement]) -> str:
    latencies = sorted({measurement.latency_ms for measurement in measurements})
    heads = [f"{latency} ms" for latency in latencies] + [f"off at {latency} ms, px" for latency in latencies]
    lines = [f"| jump, median / max, px/s | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for publication in dict.fromkeys(measurement.publication for measurement in measurements):
        row = {m.latency_ms: m for m in measurements if m.publication == publication}
        jumps = [f"{np.median(row[key].jumps):.0f} / {row[key].jumps.max():.0f}" for key in latencies]
        errors = [f"{row[key].error:.1f}" for key in latencies]
        lines.append(f"| {publication.name} | {' | '.join([*jumps, *errors])} |")
    seams = min(len(measurement.jumps) for measurement in measurements)
    return "\n".join([*lines, "", f"At least {seams} seams each.", ""])
