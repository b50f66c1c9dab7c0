from __future__ import annotations

import itertools
import unittest
from typing import ClassVar

from policy_peer import STEP, PolicyPeer
from ros_graph import RosGraph

APART = 10**6
"""Control periods between two tests, so that the history of one is none of the other's."""


class PolicyTestCase(unittest.TestCase):
    """Tests of the policy node of the launch, which each finds active, with time moved on since the test before.

    Attributes:
        start: a time in ns that no observation has reached yet.
    """

    graph: ClassVar[RosGraph]
    policy: ClassVar[PolicyPeer]
    starts: ClassVar[itertools.count[int]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.graph = RosGraph()
        cls.policy = PolicyPeer(cls.graph).activate()
        cls.starts = itertools.count(STEP, APART * STEP)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.graph.close()

    def setUp(self) -> None:
        self.start = next(self.starts)
        self.policy.chunks.clear()
        self.policy.diagnostics.clear()
        self.policy.wait_for_message("")
        self.before = self.policy.values()
        assert self.before["state"] == "active"

    def counted(self, key: str) -> int:
        """How much a count in the diagnostics has grown in this test."""
        return int(self.policy.values().get(key, 0)) - int(self.before.get(key, 0))

    def wait_for(self, key: str, count: int) -> None:
        self.graph.spin_until(lambda: self.counted(key) >= count, f"{count} × {key}")
