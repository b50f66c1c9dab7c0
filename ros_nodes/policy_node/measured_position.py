"""Where the commanded joints are, by the newest measurements of any source. Knows no ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


class MeasuredPosition:
    """The newest measured position of each commanded joint.

    Args:
        joints: (J,) names of the commanded joints.
        columns: by source, the index of each of these joints among the source's numbers.
    """

    def __init__(self, joints: Sequence[str], columns: Mapping[str, Mapping[str, int]]) -> None:
        self._joints = tuple(joints)
        self._columns = columns
        self._newest: dict[str, tuple[int, float]] = {}

    def note(self, source: str, stamp_ns: int, values: NDArray[np.float64]) -> None:
        """Take note of a source's measurement, with its time in ns."""
        for joint, column in self._columns.get(source, {}).items():
            self._newest[joint] = stamp_ns, float(values[column])

    def forget(self) -> None:
        """Know nothing any more."""
        self._newest.clear()

    def since(self, oldest_ns: int) -> NDArray[np.float64] | None:
        """(J,) positions, if each joint was measured at this time in ns or later."""
        newest = [self._newest.get(joint) for joint in self._joints]
        if any(entry is None or entry[0] < oldest_ns for entry in newest):
            return None
        return np.array([entry[1] for entry in newest if entry is not None])
