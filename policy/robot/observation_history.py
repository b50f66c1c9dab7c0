"""From streams of stamped measurements to the observation history of a policy. Knows no ROS.

Each source fills a slice of the observation vector at a rate of its own. A history is looked up in the buffers of the
sources, at the newest time that all of them have reached and at whole control periods before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

# Number of late stamps in a row at which a source is believed, as its clock may have been set back by less than the
# restart gap.
BELIEVED_AFTER = 10

BUFFER_LENGTH = 2048


class RejectedObservation(ValueError):
    """A measurement that must not reach the policy.

    Attributes:
        reason: short name, by which rejections are counted.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Arrival(Enum):
    """What a measurement did to the history."""

    NEW = "new"
    DUPLICATE = "duplicate"
    RESTART = "restart"


@dataclass(frozen=True, kw_only=True)
class SourceSlice:
    """Where the values of a source go, and how long they are good for.

    Attributes:
        name: for messages to people.
        first: index in the observation vector.
        size: numbers that it fills.
        max_age_ns: oldest age at which the policy may act on it, in ns.
    """

    name: str
    first: int
    size: int
    max_age_ns: int


def check_coverage(slices: Iterable[SourceSlice], observation_dim: int) -> None:
    """Check that the slices fill the observation vector, each index once.

    Raises:
        ValueError: naming the first index that is filled twice, never, or does not exist.
    """
    filled_by: dict[int, str] = {}
    for part in slices:
        for index in range(part.first, part.first + part.size):
            if not 0 <= index < observation_dim:
                raise ValueError(
                    f"source {part.name} fills index {index}, the policy's observation has {observation_dim}"
                )
            if index in filled_by:
                raise ValueError(f"sources {filled_by[index]} and {part.name} both fill index {index}")
            filled_by[index] = part.name
    missing = sorted(set(range(observation_dim)) - filled_by.keys())
    if missing:
        raise ValueError(f"no source fills index {missing[0]} of the observation")


@dataclass(kw_only=True)
class _Source:
    slice: SourceSlice
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    buffer: deque[tuple[int, NDArray[np.float64]]] = field(
        default_factory=lambda: deque(maxlen=BUFFER_LENGTH)
    )
    last_stamp: int | None = None  # outlives the buffer at a restart, or late messages would look new
    refused: int = 0


class ObservationHistory:
    """The newest measurements of all sources.

    Args:
        slices: slices that together fill the observation vector.
        lower, upper: (observation_dim,) limits beyond which a value is refused.
        steps: number of observations in a history.
        period_ns: time between them, the control period, in ns.
        restart_gap_ns: time in ns. A step in a source's stamps larger than this, and than its max_age, forwards or
            backwards, means that the world was restarted; the history restarts too.
    """

    def __init__(
        self,
        slices: Sequence[SourceSlice],
        lower: NDArray[np.float64],
        upper: NDArray[np.float64],
        *,
        steps: int,
        period_ns: int,
        restart_gap_ns: int,
    ) -> None:
        check_coverage(slices, len(lower))
        self._sources = {
            part.name: _Source(
                slice=part,
                lower=lower[part.first : part.first + part.size],
                upper=upper[part.first : part.first + part.size],
            )
            for part in slices
        }
        self._dim = len(lower)
        self._steps = steps
        self._period_ns = period_ns
        self._gap_ns = restart_gap_ns
        self._keep_ns = steps * period_ns + max(part.max_age_ns for part in slices)
        self._era: int | None = None  # newest stamp since the last restart
        self._start: int | None = None  # first complete observation since then

    def forget(self) -> None:
        """Start anew, as if nothing had ever arrived."""
        for source in self._sources.values():
            source.last_stamp = None
            source.refused = 0
        self._restart(None)

    def add(self, name: str, stamp_ns: int, values: NDArray[np.float64]) -> Arrival:
        """Take in a measurement.

        Args:
            name: of its source.
            stamp_ns: when it was taken, in ns.
            values: (size,) in the units of the training data.

        Raises:
            RejectedObservation: `length`, `not_finite`, `range`, or `order` for one that is older than its
                predecessor or from before a restart.
        """
        source = self._sources[name]
        _check_values(source, values)
        if stamp_ns == source.last_stamp:
            return Arrival.DUPLICATE
        gap = max(self._gap_ns, source.slice.max_age_ns)
        step = 0 if source.last_stamp is None else stamp_ns - source.last_stamp
        jumps = abs(step) > gap
        joins_era = self._era is None or abs(stamp_ns - self._era) <= gap
        late = not jumps and (step < 0 or not joins_era)
        if late and source.refused + 1 < BELIEVED_AFTER:
            source.refused += 1
            raise RejectedObservation("order", _order_detail(stamp_ns, step, self._era))
        if jumps and joins_era:  # this source alone was away, or follows the others into a restarted world
            source.buffer.clear()
            self._start = None
        elif jumps or late:
            self._restart(stamp_ns)
        source.last_stamp, source.refused = stamp_ns, 0
        self._era = stamp_ns if self._era is None else max(self._era, stamp_ns)
        source.buffer.append((stamp_ns, values))
        while source.buffer[0][0] < stamp_ns - self._keep_ns:
            source.buffer.popleft()
        return Arrival.RESTART if jumps or late else Arrival.NEW

    def _restart(self, era: int | None) -> None:
        for source in self._sources.values():
            source.buffer.clear()
        self._era = era
        self._start = None

    def newest_stamp(self) -> int | None:
        """Time of the newest observation of which all parts are there, in ns."""
        newest = [source.buffer[-1][0] for source in self._sources.values() if source.buffer]
        if len(newest) < len(self._sources):
            return None
        stamp = min(newest)
        return None if self.silent(stamp) else stamp

    def sample(self, stamp_ns: int) -> NDArray[np.float64]:
        """The history that ends at `newest_stamp`: (steps, observation_dim), oldest first.

        Times from before the first observation since the last restart repeat that one.
        """
        if self._start is None:
            self._start = stamp_ns
        times = (stamp_ns - ago * self._period_ns for ago in reversed(range(self._steps)))
        return np.stack([self.observation(max(time, self._start)) for time in times])

    def observation(self, stamp_ns: int) -> NDArray[np.float64]:
        """The observation (observation_dim,) at a time: of each source, the nearest measurement that is still held."""
        observation = np.empty(self._dim)
        for source in self._sources.values():
            first = source.slice.first
            observation[first : first + source.slice.size] = _nearest(source, stamp_ns)[1]
        return observation

    def silent(self, stamp_ns: int) -> str | None:
        """The first source without a measurement within its max_age of a time, or None."""
        for name, source in self._sources.items():
            if not source.buffer or abs(_nearest(source, stamp_ns)[0] - stamp_ns) > source.slice.max_age_ns:
                return name
        return None

    def ages(self, now_ns: int) -> dict[str, float | None]:
        """Age of the newest measurement of each source in s, None where there is none."""
        return {
            name: (now_ns - source.buffer[-1][0]) / 1e9 if source.buffer else None
            for name, source in self._sources.items()
        }

    def obstacle(self, now_ns: int) -> str | None:
        """Why the policy may not act now, naming the source, or None if it may."""
        for name, age in self.ages(now_ns).items():
            max_age = self._sources[name].slice.max_age_ns / 1e9
            if age is None:
                return f"{name}: nothing received"
            if age > max_age:
                return f"{name}: {age:.2f} s old, max_age is {max_age:.2f} s"
        if self.newest_stamp() is None:
            return f"{', '.join(self._sources)}: stamps too far apart"
        return None


def check_age(part: SourceSlice, stamp_ns: int, now_ns: int, *, may_lead: bool) -> None:
    """Check that a measurement is fresh.

    Args:
        part: its source.
        stamp_ns: when it was taken, in ns.
        now_ns: the node's clock, in ns.
        may_lead: whether stamps may be ahead of the clock. A simulated clock arrives over the network as they do.

    Raises:
        RejectedObservation: `stale` or `future`.
    """
    age, limit = (now_ns - stamp_ns) / 1e9, part.max_age_ns / 1e9
    if age > limit:
        raise RejectedObservation(
            "stale", f"{age:.3f} s old, max_age is {limit:.3f} s (is use_sim_time set as in the sources?)"
        )
    if -age > limit and not may_lead:
        raise RejectedObservation("future", f"stamped {-age:.3f} s ahead of this machine's clock")


def _order_detail(stamp_ns: int, step: int, era: int | None) -> str:
    if step < 0:
        return f"{-step / 1e9:.3f} s older than its predecessor"
    assert era is not None
    return f"stamped {abs(stamp_ns - era) / 1e9:.3f} s apart from the newest observation"


def _check_values(source: _Source, values: NDArray[np.float64]) -> None:
    if values.shape != (source.slice.size,):
        raise RejectedObservation("length", f"{values.size} numbers, need {source.slice.size}")
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise RejectedObservation("not_finite", f"number {index} is {values[index]}")
    outside = (values < source.lower) | (values > source.upper)
    if outside.any():
        index = int(np.argmax(outside))
        raise RejectedObservation(
            "range",
            f"number {index} is {values[index]:g}, must be in "
            f"{source.lower[index]:g} … {source.upper[index]:g} (training data and range_margin)",
        )


def _nearest(source: _Source, stamp_ns: int) -> tuple[int, NDArray[np.float64]]:
    """The measurement nearest to a time; the older one of two that are equally near."""
    best = source.buffer[-1]
    for entry in reversed(source.buffer):
        if abs(entry[0] - stamp_ns) <= abs(best[0] - stamp_ns):
            best = entry
        elif entry[0] < stamp_ns:
            break
    return best
