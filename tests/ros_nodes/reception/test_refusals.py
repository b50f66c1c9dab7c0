from __future__ import annotations

from collections import Counter

import pytest

from ros_nodes.reception import refusals
from ros_nodes.reception.refusals import Refusals


def test_each_kind_is_counted_always_and_named_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(refusals.time, "monotonic", lambda: now)
    said: list[str] = []
    counts: Counter[tuple[str, str]] = Counter()
    refused = Refusals("observation", said.append, counts)
    for _ in range(3):
        refused.add("pusher", "time", "stamped -1 s")
        refused.add("pusher", "size", "9 bytes")
    assert said == [
        "pusher: observation refused (time): stamped -1 s",
        "pusher: observation refused (size): 9 bytes",
    ]
    now += 2.0
    refused.add("pusher", "size", "8 bytes")
    assert said[2:] == ["pusher: observation refused (size): 8 bytes"]
    assert counts == {("pusher", "time"): 3, ("pusher", "size"): 4}
    assert refused.values("rejected") == {
        "rejected": "7",
        "rejected.pusher.size": "4",
        "rejected.pusher.time": "3",
    }
