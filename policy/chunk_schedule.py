"""When the next action chunk must be computed, in a world that does not wait for it."""

from __future__ import annotations

from collections import deque

LATENCY_WINDOW = 20


class ChunkSchedule:
    """Decides for each new observation whether the next chunk starts from it.

    All times are nanoseconds of the clock that stamps the observations, which a simulation may run faster or slower
    than time passes.

    Args:
        chunk_ns: how long a chunk lasts.
        period_ns: the control period.
        margin_ns: how much earlier than needed a chunk should be ready.
        synchronous: whether the world stands still from the end of a chunk until the next one.
        latency_ns: expected latency of the first chunk.
    """

    def __init__(
        self, *, chunk_ns: int, period_ns: int, margin_ns: int, synchronous: bool, latency_ns: int
    ) -> None:
        self._chunk_ns = chunk_ns
        self._period_ns = period_ns
        self._margin_ns = margin_ns
        self._synchronous = synchronous
        self._latencies = deque([latency_ns], maxlen=LATENCY_WINDOW)
        self.restart()

    def restart(self) -> None:
        """The next complete observation starts a chunk."""
        self._end: int | None = None
        self._used: int | None = None
        self._newest: int | None = None
        self._interval = self._period_ns

    def relearn(self) -> None:
        """Another policy computes from now on. Nobody knows how long it takes, so its first chunk starts at once."""
        self._latencies.clear()

    def observe(self, stamp_ns: int) -> bool:
        """Take note of the newest complete observation; returns whether it is a new one."""
        if stamp_ns == self._newest:
            return False
        if self._newest is not None and stamp_ns > self._newest:
            self._interval = stamp_ns - self._newest
        self._newest = stamp_ns
        return True

    def due(self, now_ns: int) -> bool:
        """Whether to start from the newest observation, because waiting for the one after it would be too late."""
        if self._newest is None or (self._used is not None and self._newest <= self._used):
            return False
        if self._end is None:
            return True
        if self._synchronous:
            return self._newest >= self._end
        if not self._latencies:
            return True
        return now_ns + self._interval > self._end - max(self._latencies) - self._margin_ns

    def started(self, stamp_ns: int) -> None:
        """A chunk is being computed from the observation with this stamp, which will not be used again."""
        self._used = stamp_ns

    def finished(self, stamp_ns: int, latency_ns: int, now_ns: int) -> bool:
        """A chunk is ready; returns whether it missed its deadline, the last point of the chunk before it."""
        missed = not self._synchronous and self._end is not None and now_ns > self._end
        self._latencies.append(latency_ns)
        self._end = stamp_ns + self._chunk_ns
        return missed
