"""A source of observations that stops and comes back, in wall time."""

from __future__ import annotations

import unittest
from typing import Any

import launch_testing
import launch_testing.asserts
import node_actions
from launch import LaunchDescription
from policy_peer import observation
from policy_test_case import PolicyTestCase


def generate_test_description() -> tuple[LaunchDescription, dict[str, Any]]:
    node = node_actions.policy(use_sim_time=False)
    return node_actions.description(node), {"node": node}


class TestStoppedSource(PolicyTestCase):
    def test_no_chunk_after_its_maximum_age_and_chunks_again_when_it_returns(self) -> None:
        policy = self.policy

        def observe_until(chunks: int) -> bool:
            # Paced by the test's own spinning, 50 ms at the most between two observations.
            policy.observe(policy.now(), observation(0))
            return len(policy.chunks) >= chunks

        self.graph.spin_until(lambda: observe_until(3), "chunks")
        heard = len(policy.diagnostics)

        def pusher_alone() -> bool:
            policy.send_pusher(policy.now(), observation(0)[18:])
            return any("no chunk: keypoints: " in status.message for status in policy.diagnostics[heard:])

        self.graph.spin_until(pusher_alone, "a warning that names the source")
        assert "s old, max_age is 0.50 s" in policy.diagnostics[-1].message

        def report() -> str:
            """How many chunks the node itself has counted a report later."""
            heard = len(policy.diagnostics)
            self.graph.spin_until(
                lambda: pusher_alone() and len(policy.diagnostics) > heard, "a report, one a second"
            )
            return policy.values()["chunks"]

        report()  # a chunk may still have been under way
        stopped = report()
        assert report() == stopped
        received = len(policy.chunks)
        self.graph.spin_until(lambda: observe_until(received + 3), "chunks again")

    def test_observations_that_are_too_old_or_not_yet_taken_are_refused(self) -> None:
        self.policy.send_pusher(self.policy.now() - 5 * 10**9, observation(0)[18:])
        self.wait_for("rejected_observations.pusher.stale", 1)
        self.policy.send_keypoints(self.policy.now() + 60 * 10**9, observation(0)[:18])
        self.wait_for("rejected_observations.keypoints.future", 1)
        # The motion of another test may be stopped now, with a trajectory of one point.
        assert all(len(chunk.points) == 1 for chunk in self.policy.chunks)


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    def test_it_ends_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
