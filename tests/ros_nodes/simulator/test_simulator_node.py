from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from geometry_msgs.msg import PolygonStamped, PoseStamped
from numpy.typing import NDArray
from rcl_interfaces.srv import DescribeParameters, ListParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

import pusht_env  # noqa: F401, registers the environment
from ros_nodes.commands.trajectory_messages import nanoseconds
from ros_nodes.simulator.simulated_robot import RESET_JUMP

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "ros.md"
STEP = 100_000_000
"""A control step in ns."""


def random_targets(count: int) -> NDArray[np.float64]:
    """As a policy's: (count, 2), float32 numbers."""
    return np.random.default_rng(0).uniform(0, 512, (count, 2)).astype(np.float32).astype(np.float64)


def play(seed: int, actions: Any, max_steps: int = 200) -> tuple[list[Any], list[float]]:
    """What gymnasium's environment observes and rewards."""
    env = gymnasium.make("pusht_env/PushT-v0", max_episode_steps=max_steps, disable_env_checker=True)
    observations, rewards = [env.reset(seed=seed)[0]], []
    for action in actions:
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    return observations, rewards


# --- Lockstep ---


def test_lockstep_reproduces_the_environment_to_the_last_bit(simulate: Any, graph: Any) -> None:
    simulator = simulate(mode="lockstep", max_steps=20)
    keypoints = graph.listen(PolygonStamped, "/block/keypoints")
    poses = graph.listen(PoseStamped, "/block/pose")
    graph.spin_for(0.5)
    assert not simulator.joints, "nothing is observed before the first reset"
    assert simulator.reset(7) == "episode of seed 7"
    targets = random_targets(24)
    start = simulator.time
    for first in (0, 8, 16):
        simulator.send(targets[first : first + 8], start + first * STEP)
        simulator.wait_for_step(min(first + 8, 20))
        simulator.wait(start + min(first + 8, 20) * STEP)
    observations, rewards = play(7, targets[:20], max_steps=20)

    assert [message.data[1] for message in simulator.episode] == list(range(21))
    assert [message.data[2] for message in simulator.episode][1:] == rewards
    assert [bool(message.data[5]) for message in simulator.episode] == [False] * 20 + [True]
    assert simulator.positions() == [observation[18:].tolist() for observation in observations]
    moved = np.subtract(simulator.joints[-1].position, simulator.positions()[-2])
    assert list(simulator.joints[-1].velocity) == pytest.approx(10 * moved)
    stamps = [start + step * STEP for step in range(21)]
    for messages in (simulator.joints, keypoints, poses):
        graph.spin_until(
            lambda heard=messages: nanoseconds(heard[-1].header.stamp) == stamps[-1], "the last step"
        )
        assert sorted({nanoseconds(message.header.stamp) for message in messages}) == stamps
    by_time = {nanoseconds(message.header.stamp): message.polygon.points for message in keypoints}
    seen = np.array([[(point.x, point.y) for point in by_time[stamp]] for stamp in stamps])  # (21, 9, 2)
    expected = np.array(observations)[:, :18].reshape(-1, 9, 2)
    np.testing.assert_array_equal(seen, expected.astype(np.float32))


def test_lockstep_stands_still_without_trajectories_and_repeats_itself(simulate: Any, graph: Any) -> None:
    simulator = simulate(mode="lockstep")
    simulator.reset(3)
    first = simulator.time
    graph.spin_until(lambda: len(simulator.joints) >= 4, "repeated observations")
    assert {nanoseconds(message.header.stamp) for message in simulator.joints} == {first}
    assert len(simulator.episode) == 1


def test_a_reset_starts_the_same_episode_later_and_ignores_older_trajectories(
    simulate: Any, graph: Any
) -> None:
    simulator = simulate(mode="lockstep")
    targets = random_targets(8)

    def episode() -> list[list[float]]:
        simulator.reset(11)
        simulator.send(targets, simulator.time)
        simulator.wait_for_step(8)
        simulator.wait(nanoseconds(simulator.joints[0].header.stamp) + 8 * STEP)
        return simulator.positions()

    first = episode()
    before = simulator.time
    second = episode()
    assert second == first
    assert len(first) == 9
    assert nanoseconds(simulator.joints[0].header.stamp) > before + 5 * STEP

    simulator.reset(11)
    simulator.send(np.full((80, 2), 9.0), before)
    graph.spin_for(1.0)
    assert simulator.episode[-1].data[1] == 0


def test_an_episode_that_has_ended_takes_no_trajectory(simulate: Any, graph: Any) -> None:
    simulator = simulate(mode="lockstep", max_steps=4)
    simulator.reset(0)
    simulator.send(random_targets(8), simulator.time)
    simulator.wait_for_step(4)
    simulator.send(random_targets(8))
    graph.spin_for(1.0)
    assert simulator.episode[-1].data[1] == 4
    assert "the episode has ended" in graph.output(simulator.process)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"joint_names": ["pusher_x"]}, "joint names must be pusher_x, pusher_y"),
        ({"points": []}, "no points"),
        ({"positions": [float("nan"), 1.0]}, "not finite"),
    ],
)
def test_a_bad_trajectory_moves_nothing_and_is_named(
    simulate: Any, graph: Any, broken: dict[str, Any], reason: str
) -> None:
    simulator = simulate(mode="lockstep")
    simulator.reset(0)
    message = simulator.trajectory(random_targets(8), simulator.time)
    if "positions" in broken:
        message.points[4].positions = broken["positions"]
    else:
        for name, value in broken.items():
            setattr(message, name, value)
    simulator.publisher.publish(message)
    graph.spin_until(lambda: reason in graph.output(simulator.process), f"a warning: {reason}")
    assert simulator.episode[-1].data[1] == 0


# --- Real time ---


def test_real_time_goes_on_by_itself_and_holds_the_last_point(simulate: Any, graph: Any) -> None:
    simulator = simulate(real_time_factor=4.0, max_steps=5)
    clock = graph.listen(Clock, "/clock")
    simulator.wait(10 * STEP)
    simulator.send([(100.0, 200.0), (120.0, 220.0)])
    simulator.wait_for_position([120.0, 220.0])
    simulator.wait(simulator.time + 5 * STEP)
    assert simulator.position == pytest.approx([120.0, 220.0], abs=0.5)

    steps = np.diff([nanoseconds(message.header.stamp) for message in simulator.joints])
    assert set(steps) == {STEP}
    ticks = np.diff([nanoseconds(message.clock) for message in clock])
    assert (ticks >= 0).all()
    assert np.median(ticks[ticks > 0]) <= STEP
    graph.spin_until(
        lambda: simulator.episode[-1].data[5] == 1.0, "past max_steps the robot goes on, the episode is over"
    )


def test_real_time_keeps_the_pace_of_the_wall_clock(simulate: Any, graph: Any) -> None:
    """Only that it is neither frozen nor free-running: how exact it is depends on the machine."""
    begun = time.monotonic()
    simulator = simulate(real_time_factor=1.0)
    simulator.wait(10 * STEP)
    # From before the simulation began, as the first observation may be read long after it was made.
    simulated = 40 * STEP
    simulator.wait(RESET_JUMP + simulated)
    assert time.monotonic() - begun > 0.9 * simulated / 1e9


def test_a_new_trajectory_replaces_the_running_one(simulate: Any) -> None:
    simulator = simulate(real_time_factor=2.0)
    simulator.wait(10 * STEP)
    simulator.send(np.full((100, 2), 400.0))
    simulator.wait_for_position([400.0, 400.0])
    simulator.send([(50.0, 60.0)])
    simulator.wait_for_position([50.0, 60.0])


def test_pictures_and_markers_on_request(simulate: Any, graph: Any) -> None:
    simulate(image_size=64)
    image = graph.listen(Image, "/pusht_simulator/image")
    markers = graph.listen(MarkerArray, "/pusht_simulator/markers")
    graph.spin_until(lambda: image and markers, "an image and markers")
    frame = np.frombuffer(image[-1].data, np.uint8).reshape(64, 64, 3)
    assert image[-1].encoding == "rgb8"
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) > 3
    assert [marker.ns for marker in markers[-1].markers] == [
        "workspace", "goal", "goal", "block", "block", "pusher",
    ]  # fmt: skip


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_on_a_signal(simulate: Any, graph: Any, sent: signal.Signals) -> None:
    simulator = simulate()
    simulator.wait(15 * STEP)
    assert graph.stop(simulator.process, sent) == 0
    assert "Traceback" not in graph.output(simulator.process)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"mode": "turbo"}, "mode must be realtime or lockstep"), ({"seed": -1}, "seed")],
)
def test_a_bad_parameter_is_an_error_in_one_line(
    graph: Any, parameters: dict[str, Any], message: str
) -> None:
    process = graph.start("ros_nodes.simulator.simulator_node", **parameters)
    assert process.wait(60) == 1
    lines = [line for line in graph.output(process).splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in graph.output(process)


@pytest.mark.parametrize(
    ("module", "node"),
    [
        ("ros_nodes.simulator.simulator_node", "pusht_simulator"),
        ("ros_nodes.episodes.episode_runner", "episode_runner"),
    ],
)
def test_every_parameter_is_described_and_documented(graph: Any, module: str, node: str) -> None:
    graph.start(module)
    names = set(graph.call(ListParameters, f"/{node}/list_parameters").result.names)
    own = sorted(names - {"use_sim_time", "start_type_description_service"})
    assert len(own) >= 7
    request = DescribeParameters.Request(names=own)
    for descriptor in graph.call(DescribeParameters, f"/{node}/describe_parameters", request).descriptors:
        assert descriptor.description
        documented = descriptor.name.replace("pusher_x", "<joint>").replace("pusher_y", "<joint>")
        assert f"| `{documented}` |" in DOCUMENTATION.read_text(), descriptor.name
