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

ros2_controllers' `joint_trajectory_controller` on mock hardware at 100 Hz, with the settings of
`config/ros2_control.yaml` but for the one that is named below, and without tolerances. It is fed chunks of 8 points,
0.1 s apart, along a circle of {RADIUS:g} px at {SPEED:g} px/s, as a policy would send them with a latency;
each comes 0.05 s to 0.15 s before the one before it is over. And it is fed the shipped policy's chunks, as it predicts
them in PushT with that latency (`checkpoints/pusht_mirror.safetensors`, sequential DPM-Solver++(2M) with 5 steps, the
first episode of `make run`).

A seam's velocity jump is the largest change of the commanded velocity from one update of the controller to the next,
within {WINDOW:g} s after the chunk's publication. The circle itself makes {SPEED**2 / RADIUS / 100:.0f} px/s.
The columns *off* tell how far a joint was at most from where the controller wanted it: a path tolerance below that
stops the robot.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured.

    Attributes:
        from_desired: the controller's setting interpolate_from_desired_state.
        drift: as of `synthetic_chunks.horizon`; None for the policy's chunks.
        publication: what is sent.
        latency_ms: from observation to publication.
    """

    from_desired: bool
    drift: float | None
    publication: Publication
    latency_ms: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement:
    """What came out.

    Attributes:
        jumps: (S,) px/s.
        error: largest distance in px of a joint from where the controller wanted it.
        times: (T,) of the controller's updates, in s.
        positions: (T, J) that it commanded then, in px.
        seams: (N,) times in s of publications.
    """

    case: Case
    jumps: NDArray[np.float64]
    error: float
    times: NDArray[np.float64]
    positions: NDArray[np.float64]
    seams: NDArray[np.float64]


def format_report(
    measurements: Sequence[Measurement], *, own: NDArray[np.float64], origin: str, picture: str
) -> str:
    """The page, with a table for each drift and setting, and a picture that lies beside it.

    Args:
        own: velocity jumps in px/s of demonstrations; may be none.
    """
    parts = [PAGE, f"{origin}\n"]
    if len(own):
        median, high = np.percentile(own, [50, 95])
        parts.append(
            "The demonstrations' own actions, each episode as one trajectory with velocities, jump by "
            f"{median:.0f} px/s in the median, {high:.0f} at the 95th percentile and {own.max():.0f} at most, in "
            f"{len(own)} times of {WINDOW:g} s, one each chunk.\n"
        )
    for from_desired, drift in dict.fromkeys((m.case.from_desired, m.case.drift) for m in measurements):
        setting = f"interpolate_from_desired_state: {str(from_desired).lower()}"
        parts.append(f"## {_title(drift)}; `{setting}`\n")
        parts.append(
            _table([m for m in measurements if (m.case.from_desired, m.case.drift) == (from_desired, drift)])
        )
        if drift is None:
            parts.append(f"![What the controller commands]({picture})\n")
    return "\n".join(parts)


def _title(drift: float | None) -> str:
    if drift is None:
        return "Chunks of the shipped policy"
    if drift:
        return f"Chunks that drift apart: point 8 is off by {drift:g} px (standard deviation)"
    return "Chunks that agree"


def _table(measurements: Sequence[Measurement]) -> str:
    latencies = sorted({measurement.case.latency_ms for measurement in measurements})
    heads = [f"{latency} ms" for latency in latencies] + [f"off at {latency} ms, px" for latency in latencies]
    lines = [f"| jump, median / max, px/s | {' | '.join(heads)} |", "|---" + "|---:" * len(heads) + "|"]
    for publication in dict.fromkeys(measurement.case.publication for measurement in measurements):
        row = {m.case.latency_ms: m for m in measurements if m.case.publication == publication}
        jumps = [f"{np.median(row[key].jumps):.0f} / {row[key].jumps.max():.0f}" for key in latencies]
        errors = [f"{row[key].error:.1f}" for key in latencies]
        lines.append(f"| {publication.name} | {' | '.join([*jumps, *errors])} |")
    counts = [len(measurement.jumps) for measurement in measurements]
    return "\n".join([*lines, "", f"{min(counts)} to {max(counts)} seams each.", ""])
