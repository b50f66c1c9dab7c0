"""The behaviour of a simulated world while the policy computes, as data."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("none", "fixed", "measured")
AFTER_CHUNK = ("hold", "horizon")
NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class LatencyConfig:
    """Inference times of chunks, and what the pusher does meanwhile.

    Attributes:
        mode: ``none``: the world waits for each chunk. ``fixed``: every inference takes `ms`. ``measured``: each takes
            the wall time of its policy call, of one episode at a time.
        ms: inference time in mode ``fixed``.
        margin_ms: time by which a chunk should arrive earlier than needed, `inference_margin` of the policy node.
        after_chunk: action between the end of a chunk and the next chunk. ``hold``: hold the last target, as the policy
            node's chunks do. ``horizon``: follow the prediction beyond the chunk.

    Raises:
        ValueError: for an unknown mode or choice, or a time outside 0 to 60 s.
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
        """Simulated inference time of a chunk, from the wall time of its policy call."""
        return round({"none": 0.0, "fixed": self.ms, "measured": 1000 * seconds}[self.mode] * NS_PER_MS)
