"""What goes wrong on a robot, and how the node gets over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifecycle_msgs.msg import TransitionEvent

STEP = 100_000_000


def observation(number: float) -> np.ndarray:
    return 100.0 + 10 * np.arange(20) + number


def with_value(index: int, value: float) -> np.ndarray:
    values = observation(0)
    values[index] = value
    return values


def keypoints(policy: Any, stamp: int, values: Any) -> None:
    policy.send_keypoints(stamp, values, frame_id="world")


MALFORMED: dict[str, tuple[str, Callable[[Any, int], None]]] = {
    "NaN": ("pusher.not_finite", lambda p, stamp: p.send_pusher(stamp, [np.nan, 100.0])),
    "infinite": ("keypoints.not_finite", lambda p, stamp: keypoints(p, stamp, with_value(3, np.inf)[:18])),
    "too short": ("keypoints.length", lambda p, stamp: keypoints(p, stamp, np.zeros(16))),
    "too few positions": ("pusher.length", lambda p, stamp: p.send_pusher(stamp, [100.0])),
    "far out of range": ("pusher.range", lambda p, stamp: p.send_pusher(stamp, [100.0, 3000.0])),
    "missing joint": (
        "pusher.joint",
        lambda p, stamp: p.send_pusher(stamp, [1.0, 2.0], ("elbow", "pusher_x")),
    ),
    "wrong frame": (
        "keypoints.frame",
        lambda p, stamp: p.send_keypoints(stamp, observation(0)[:18], "elsewhere"),
    ),
}


@pytest.fixture
def policy(start_policy: Callable[..., Any]) -> Any:
    """An active node in simulated time."""
    return start_policy(keypoints__frame_id="world").activate()


def observe(policy: Any, stamp: int, number: float = 0) -> None:
    keypoints(policy, stamp, observation(number)[:18])
    policy.send_pusher(stamp, observation(number)[18:])


def test_malformed_observations_are_refused_counted_and_named(policy: Any) -> None:
    for number, (counter, send) in enumerate(MALFORMED.values()):
        send(policy, (number + 1) * STEP)
        policy.wait_for_value(f"rejected_observations.{counter}", 1)
    output = policy.graph.output(policy.process)
    for counter, _ in MALFORMED.values():
        source, reason = counter.split(".")
        assert f"{source}: observation refused ({reason}): " in output
    assert not policy.chunks
    policy.wait_for_value("rejected_observations", len(MALFORMED))
    assert policy.values()["rejected_observations"] == str(len(MALFORMED))
    stamp = 20 * STEP
    observe(policy, stamp)
    assert policy.chunk(0)[0] == stamp


def test_ten_thousand_malformed_messages_leave_the_node_as_it_was(policy: Any) -> None:
    kinds = list(MALFORMED.values())
    sent = 0

    def send_until(refused: int) -> bool:
        nonlocal sent
        for _ in range(100):
            sent += 1
            kinds[sent % len(kinds)][1](policy, sent * STEP)
            if sent % 5 == 0:
                time.sleep(0.002)  # or newer messages would replace older ones in the queues
        return int(policy.values().get("rejected_observations", 0)) >= refused

    policy.graph.spin_until(lambda: send_until(2_000), "2,000 refusals")
    before, threads = policy.memory(), policy.threads()
    policy.graph.spin_until(lambda: send_until(12_000), "12,000 refusals", timeout=180)
    assert policy.memory() - before < 5e6
    assert policy.threads() == threads
    assert not policy.chunks
    # Throttled: a warning of each kind every 2 s, not one for each message.
    assert policy.graph.output(policy.process).count("observation refused") < 2_000
    observe(policy, (sent + 10) * STEP)
    assert policy.chunk(0)[0] == (sent + 10) * STEP


def test_out_of_order_stamps_are_refused(policy: Any) -> None:
    observe(policy, 10 * STEP)
    policy.chunk(0)
    observe(policy, 8 * STEP)
    policy.wait_for_value("rejected_observations.keypoints.order", 1)
    policy.wait_for_value("rejected_observations.pusher.order", 1)
    observe(policy, 20 * STEP)
    assert policy.chunk(1)[0] == 20 * STEP


def test_a_source_that_stops_stops_the_chunks_until_it_returns(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(use_sim_time=False).activate()
    # Wall time is paced by the test's own spinning, 50 ms at the most between two observations.
    policy.graph.spin_until(
        lambda: policy.observe(policy.now(), observation(0)) or len(policy.chunks) > 2, "chunks"
    )
    heard = len(policy.diagnostics)

    def pusher_alone() -> bool:
        policy.send_pusher(policy.now(), observation(0)[18:])
        return any("no chunk: keypoints: " in status.message for status in policy.diagnostics[heard:])

    policy.graph.spin_until(pusher_alone, "a warning that names the source")
    assert "s old, max_age is 0.50 s" in policy.diagnostics[-1].message
    stopped = len(policy.chunks)
    heard = len(policy.diagnostics)
    policy.graph.spin_until(lambda: pusher_alone() and len(policy.diagnostics) >= heard + 2, "two reports")
    assert len(policy.chunks) == stopped
    policy.graph.spin_until(
        lambda: policy.observe(policy.now(), observation(0)) or len(policy.chunks) > stopped + 2,
        "chunks again",
    )


def test_stale_and_future_observations_are_refused_in_wall_time(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(use_sim_time=False).activate()
    policy.send_pusher(policy.now() - 5 * 10**9, observation(0)[18:])
    policy.wait_for_value("rejected_observations.pusher.stale", 1)
    policy.send_keypoints(policy.now() + 60 * 10**9, observation(0)[:18])
    policy.wait_for_value("rejected_observations.keypoints.future", 1)


def test_two_nodes_in_two_namespaces_mind_their_own_business(start_policy: Callable[..., Any]) -> None:
    left = start_policy(namespace="left").activate()
    right = start_policy(namespace="right", seed=1).activate()
    left.observe(STEP, observation(0))
    assert left.chunk(0)[0] == STEP
    right.observe(3 * STEP, observation(0))
    assert right.chunk(0)[0] == 3 * STEP
    assert left.transition("deactivate")
    assert right.state() == "active"
    assert len(left.chunks) == len(right.chunks) == 1
    assert not np.allclose(left.chunk(0)[1], right.chunk(0)[1])


def test_a_sampler_that_raises_leads_through_error_processing_and_back(
    start_faulty_policy: Callable[..., Any], tmp_path: Path
) -> None:
    policy = start_faulty_policy()
    events = policy.graph.listen(TransitionEvent, "/policy/transition_event")
    policy.activate()
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    events.clear()
    (tmp_path / "raise").touch()
    policy.observe(20 * STEP, observation(0))
    policy.graph.spin_until(
        lambda: events and events[-1].goal_state.label == "unconfigured", "the node is unconfigured"
    )
    assert [event.goal_state.label for event in events] == ["deactivating", "errorprocessing", "unconfigured"]
    policy.wait_for_message("the policy raised RuntimeError: out of patience")
    assert not policy.transition("configure"), "the warm-up raises too"
    (tmp_path / "raise").unlink()
    policy.activate()
    policy.observe(40 * STEP, observation(0))
    assert policy.chunk(1)[0] == 40 * STEP
    policy.wait_for_message("active")


def test_a_chunk_that_is_not_finite_is_never_sent(
    start_faulty_policy: Callable[..., Any], tmp_path: Path
) -> None:
    policy = start_faulty_policy().activate()
    (tmp_path / "nan").touch()
    policy.observe(STEP, observation(0))
    policy.wait_for_value("non_finite_chunks", 1)
    assert "the policy's chunk is not finite, not sent" in policy.graph.output(policy.process)
    assert policy.state() == "active"
    (tmp_path / "nan").unlink()
    policy.observe(2 * STEP, observation(0))
    assert policy.chunk(0)[0] == 2 * STEP
