"""How long an episode's world goes on while the policy computes, as data."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("none", "fixed", "measured")
AFTER_CHUNK = ("hold", "horizon")
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class LatencyConfig:
    """From the start of a chunk's inference to its arrival.

    Attributes:
        mode: ``none``: the world waits for each chunk. ``fixed``: all take as long. ``measured``: each takes the wall
            time of its policy call, which should then be that of one episode alone.
        ms: the latency if it is fixed.
        margin_ms: how much earlier than needed a chunk should be there, `inference_margin` of the policy node.
        after_chunk: what the pusher does where a chunk has ended before the next one is there. ``hold``: it holds its
            last target, as with the chunks of the policy node. ``horizon``: it goes on with what was predicted beyond
            the chunk.

    Raises:
        ValueError: for another mode or choice, or a time that is negative or beyond a minute.
    """

    mode: str = "none"
    ms: float = 0.0
    margin_ms: float = 0.0
    after_chunk: str = "hold"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"latency.mode must be one of {', '.join(MODES)}, got {self.mode!r}")
        if self.after_chunk not in AFTER_CHUNK:
            raise ValueError(
                f"latency.after_chunk must be one of {', '.join(AFTER_CHUNK)}, got {self.after_chunk!r}"
            )
        for name in ("ms", "margin_ms"):
            if not 0 <= getattr(self, name) <= 60_000:
                raise ValueError(f"latency.{name} must be in 0 … 60000, got {getattr(self, name)}")
        if self.ms and self.mode != "fixed":
            raise ValueError(f"latency.ms is for latency=fixed, got {self.ms:g} with latency={self.mode}")

    @property
    def margin_ns(self) -> int:
        return round(self.margin_ms * NS_PER_MS)

    def latency_ns(self, seconds: float) -> int:
        """Latency of a chunk whose policy call took so many seconds of wall time."""
        return round({"none": 0.0, "fixed": self.ms, "measured": 1000 * seconds}[self.mode] * NS_PER_MS)
