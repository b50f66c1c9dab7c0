"""What is refused, counted and named. Knows no ROS."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

WARNING_PERIOD = 2.0  # s


class Refusals:
    """Counts refusals by source and reason, and warns of each kind at most once in 2 s.

    Args:
        what: what is refused, for the warnings.
        warn: takes a warning.
        counts: where to count; a counter of its own if None.

    Attributes:
        counts: numbers of refusals by source and reason.
    """

    def __init__(
        self,
        what: str,
        warn: Callable[[str], object],
        counts: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter() if counts is None else counts
        self._what = what
        self._warn = warn
        self._warned: dict[tuple[str, str], float] = {}

    def add(self, source: str, reason: str, detail: str) -> None:
        """Count a refusal, and say it unless the last one of its kind was just said."""
        kind = source, reason
        self.counts[kind] += 1
        now = time.monotonic()
        if now - self._warned.get(kind, -math.inf) >= WARNING_PERIOD:
            self._warned[kind] = now
            self._warn(f"{source}: {self._what} refused ({reason}): {detail}")

    def values(self, name: str) -> dict[str, str]:
        """The counts by name, as diagnostics show them: their sum, and `<name>.<source>.<reason>`."""
        parts = {f"{name}.{'.'.join(kind)}": str(count) for kind, count in sorted(self.counts.items())}
        return {name: str(self.counts.total()), **parts}
