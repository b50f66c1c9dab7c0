"""Nodes on simulated time, whatever `/clock` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from policy_peer import STEP, observation
from policy_process import PolicyProcess
from rosgraph_msgs.msg import Clock

LAST = 2**31 - 1
"""Largest number of seconds that a message can hold."""

IMPOSSIBLE = [(-1, 0), (-1, 10**9), (-(2**31), 0), (-(2**31), 2**32 - 1), (0, 10**9), (LAST, 2**32 - 1)]
POSSIBLE = [(0, 0), (0, 1), (LAST, 999_999_999), (5, 0), (LAST, 0), (0, 0)]


def clock(sec: int, nanosec: int) -> Any:
    return Clock(clock=Time(sec=sec, nanosec=nanosec))


def send_until(graph: Any, publisher: Any, message: Any, *, done: Any, what: str) -> None:
    """Send a message again and again, since `/clock` is best effort, until it has done something."""

    def sent() -> bool:
        publisher.publish(message)
        graph.spin_for(0.02)
        return bool(done())

    graph.spin_until(sent, what)


def counts(diagnostics: list[Any], name: str) -> dict[str, str]:
    """The newest values of a node's diagnostics."""
    statuses = [status for message in diagnostics for status in message.status if status.name == name]
    return {pair.key: pair.value for pair in statuses[-1].values} if statuses else {}


def refused(graph: Any, name: str) -> Any:
    """A function that says how many times a node refused so far."""
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics")
    return lambda: int(counts(diagnostics, name).get("rejected_times.clock.time", 0))


def offer_all(graph: Any, process: Any, number_refused: Any) -> None:
    """Impossible times are counted one by one; possible ones, jumps and all, are not."""
    publisher = graph.publisher(Clock, "/clock")
    for time in IMPOSSIBLE:
        before = number_refused()
        send_until(
            graph,
            publisher,
            clock(*time),
            done=lambda before=before: number_refused() > before or process.poll() is not None,
            what=f"{time} is refused",
        )
        assert process.poll() is None, f"{time}\n{graph.output(process)}"
    graph.spin_for(1.2)  # the diagnostics of the last one
    before = number_refused()
    for time in POSSIBLE * 2:
        for _ in range(3):
            publisher.publish(clock(*time))
            graph.spin_for(0.02)
    graph.spin_for(1.2)
    assert number_refused() == before
    assert process.poll() is None
    assert "clock: time refused (time): " in graph.output(process)
    assert "Traceback" not in graph.output(process)


def test_the_policy_node_outlives_its_clock_and_acts_by_the_time_that_it_had(
    graph: Any, checkpoint: Path
) -> None:
    policy = PolicyProcess(graph, checkpoint)
    number_refused = refused(graph, "/policy")
    offer_all(graph, policy.process, number_refused)
    policy.activate()
    publisher = graph.publisher(Clock, "/clock")
    for number, seconds in enumerate((7, LAST, 3)):  # jumps ahead, to the last second and back
        publisher.publish(clock(seconds, 0))
        graph.spin_for(0.1)
        publisher.publish(clock(-1, 0))
        graph.spin_for(0.1)
        policy.observe(seconds * 10**9, observation(number))
        policy.observe(seconds * 10**9 + STEP, observation(number))
        assert policy.chunk(len(policy.chunks))[0] // 10**9 == seconds
    assert graph.stop(policy.process) == 0


def test_the_simulator_outlives_its_clock(graph: Any) -> None:
    simulator = graph.start("ros_nodes.simulator.simulator_node", use_sim_time=True, mode="lockstep")
    offer_all(graph, simulator, refused(graph, "/pusht_simulator"))
    assert graph.stop(simulator) == 0


def test_the_episode_runner_outlives_its_clock(graph: Any) -> None:
    runner = graph.start("ros_nodes.episodes.episode_runner", use_sim_time=True)
    publisher = graph.publisher(Clock, "/clock")
    for time in IMPOSSIBLE + POSSIBLE:
        for _ in range(3):
            publisher.publish(clock(*time))
            graph.spin_for(0.02)
        assert runner.poll() is None, f"{time}\n{graph.output(runner)}"
    graph.spin_until(lambda: "clock: time refused (time): " in graph.output(runner), "a warning")
    assert "Traceback" not in graph.output(runner)
