"""The schedule of inferences in a world that does not wait for them."""

from __future__ import annotations

from collections import deque

REMEMBERED = 20  # inference times


class ChunkSchedule:
    """Decides for each new observation whether the next chunk starts from it.

    All times are nanoseconds of the clock that stamps the observations. A simulated clock may run faster or slower than
    real time.

    Args:
        chunk_ns: duration of a chunk.
        period_ns: control period.
        margin_ns: time by which a chunk should be ready before it is needed.
        synchronous: whether the world stands still from the end of a chunk until the next one.
        inference_ns: expected inference time of the first chunk.
    """

    def __init__(
        self, *, chunk_ns: int, period_ns: int, margin_ns: int, synchronous: bool, inference_ns: int
    ) -> None:
        self._chunk_ns = chunk_ns
        self._period_ns = period_ns
        self._margin_ns = margin_ns
        self._synchronous = synchronous
        self._inference_times = deque([inference_ns], maxlen=REMEMBERED)
        self._doubted = False  # whether the newest inference time was impossible
        self.restart()

    def restart(self) -> None:
        """Forget all chunks: the next complete observation starts one."""
        self._end: int | None = None
        self._used: int | None = None
        self._newest: int | None = None
        self._interval = self._period_ns

    def relearn(self) -> None:
        """Forget inference times: another policy computes from now on. Its first chunk starts at once."""
        self._inference_times.clear()

    def observe(self, stamp_ns: int) -> bool:
        """Note the newest complete observation; returns whether it is new."""
        if stamp_ns == self._newest:
            return False
        if self._newest is not None and stamp_ns > self._newest:
            self._interval = stamp_ns - self._newest
        self._newest = stamp_ns
        return True

    def due(self, now_ns: int) -> bool:
        """Whether to start from the newest observation, because the one after it would be too late."""
        if self._newest is None or (self._used is not None and self._newest <= self._used):
            return False
        if self._end is None:
            return True
        if self._synchronous:
            return self._newest >= self._end
        if not self._inference_times:
            return True
        return now_ns + self._interval > self._end - max(self._inference_times) - self._margin_ns

    def delay(self, stamp_ns: int, now_ns: int) -> int:
        """Points of a chunk from the observation with this stamp that will be over on its arrival, if it starts now."""
        if self._synchronous:
            return 0
        late = now_ns - stamp_ns + max(self._inference_times, default=0)
        return max(0, -(-late // self._period_ns))

    def started(self, stamp_ns: int) -> None:
        """Note the start of an inference from the observation with this stamp, which is not used again."""
        self._used = stamp_ns

    def finished(self, stamp_ns: int, inference_ns: int, now_ns: int) -> bool:
        """Note a ready chunk; returns whether it missed its deadline, the last point of the chunk before it.

        An inference time that is negative, or longer than a chunk, is a clock that jumped; only the second in a row is
        learned, if it is positive.
        """
        missed = not self._synchronous and self._end is not None and now_ns > self._end
        # A clock that jumped meanwhile would start chunks too early, as long as its time is remembered.
        is_doubtful = not 0 <= inference_ns <= self._chunk_ns
        if not is_doubtful or (self._doubted and inference_ns > 0):
            self._inference_times.append(inference_ns)
        self._doubted = is_doubtful
        self._end = stamp_ns + self._chunk_ns
        return missed
