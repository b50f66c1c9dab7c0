"""A policy node whose policy is on another machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from policy_peer import STEP, observation
from server_process import ServerProcess


def test_a_node_acts_through_a_server_and_outlives_its_loss(
    start_policy: Callable[..., Any], expected_chunk: Callable[..., np.ndarray], checkpoints: Path
) -> None:
    server = ServerProcess(checkpoints / "tiny.safetensors")
    try:
        policy = start_policy(checkpoint=server.address, synchronous=True).activate()
        policy.observe(STEP, observation(0))
        _, chunk = policy.chunk(0)
        np.testing.assert_allclose(chunk, expected_chunk((0, 0)), atol=1e-2)
        assert "the sampler is the policy server's" in policy.set_together(sampler__steps=7)

        server.kill()
        for step in range(2, 10):
            policy.observe(step * STEP, observation(step))
        policy.wait_for_message(f"no chunk: {server.address}: ")
        policy.wait_for_value("unanswered_requests", 1)
        assert policy.state() == "active"
        assert len(policy.chunks) == 1

        server.start(checkpoints / "tiny.safetensors")

        def repeat() -> bool:  # as a world that waits does
            policy.observe(9 * STEP, observation(9))
            return len(policy.chunks) > 1

        policy.graph.spin_until(repeat, "a chunk from the server that is back")
        # With the noises that the lost request had drawn.
        np.testing.assert_allclose(policy.chunk(1)[1], expected_chunk((0, 0), (8, 9)), atol=1e-2)
        policy.wait_for_message("active")

        server.kill()
        assert policy.transition("deactivate")
        assert policy.transition("cleanup")
        assert not policy.transition("configure")
        policy.wait_for_message(f"{server.address}: ")
    finally:
        server.kill()
