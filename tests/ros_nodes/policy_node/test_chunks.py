"""What an active policy node answers to observations."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policy_peer import STEP, observation
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, Prediction, SamplerConfig, StopConfig
from policy.sampling import sampler_options


@pytest.fixture
def lockstep(start_policy: Callable[..., Any]) -> Any:
    return start_policy(synchronous=True).activate()


def test_chunks_are_those_of_the_policy(lockstep: Any, expected_chunk: Callable[..., np.ndarray]) -> None:
    lockstep.observe(STEP, observation(0))
    stamp, chunk = lockstep.chunk(0)
    assert stamp == STEP
    np.testing.assert_allclose(chunk, expected_chunk((0, 0)), atol=1e-4)
    for step in range(1, 9):
        lockstep.observe((1 + step) * STEP, observation(step))
    stamp, chunk = lockstep.chunk(1)
    assert stamp == 9 * STEP
    np.testing.assert_allclose(chunk, expected_chunk((0, 0), (7, 8)), atol=1e-4)
    assert len(lockstep.chunks) == 2
    message = lockstep.chunks[1]
    assert message.joint_names == ["pusher_x", "pusher_y"]
    due = [point.time_from_start.sec * 10**9 + point.time_from_start.nanosec for point in message.points]
    assert due == [i * STEP for i in range(1, 9)]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_computes_the_policys_chunks_or_says_what_it_needs(
    start_policy: Callable[..., Any], expected_chunk: Callable[..., np.ndarray], engine: str
) -> None:
    policy = start_policy(synchronous=True, engine=engine, threads=1)
    if find_spec(engine) is None:
        assert not policy.transition("configure")
        assert f"engine '{engine}' needs the Python package {engine}" in policy.graph.output(policy.process)
        return
    policy.activate()
    policy.observe(STEP, observation(0))
    np.testing.assert_allclose(policy.chunk(0)[1], expected_chunk((0, 0)), atol=0.01)


def test_predicted_path_shows_the_chunk(lockstep: Any) -> None:
    paths = lockstep.graph.listen(MarkerArray, "/policy/predicted_path")
    lockstep.observe(STEP, observation(0))
    _, chunk = lockstep.chunk(0)
    lockstep.graph.spin_until(lambda: paths, "a predicted path")
    for marker in paths[0].markers:
        np.testing.assert_allclose([[point.x, point.y] for point in marker.points], chunk)


def test_seed_and_sampler_change_with_the_next_chunk(
    lockstep: Any, expected_chunk: Callable[..., np.ndarray]
) -> None:
    lockstep.observe(STEP, observation(0))
    lockstep.chunk(0)
    lockstep.graph.set_parameters("policy", seed=7, sampler__steps=2)
    for step in range(1, 9):
        lockstep.observe((1 + step) * STEP, observation(step))
    _, chunk = lockstep.chunk(1)
    np.testing.assert_allclose(chunk, expected_chunk((7, 8), seed=7, steps=2), atol=1e-4)
    lockstep.graph.spin_until(lambda: lockstep.values().get("depth") == "2", "a depth of two")


def test_in_real_time_a_new_sampler_acts_before_its_engine_is_ready(
    start_faulty_policy: Callable[..., Any], expected_chunk: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    policy = start_faulty_policy().activate()
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    (tmp_path / "hold_engine").touch()
    policy.graph.set_parameters("policy", sampler__steps=2)
    policy.observe(2 * STEP, observation(1))
    np.testing.assert_allclose(policy.chunk(1)[1], expected_chunk((0, 0), (0, 1), steps=2), atol=0.01)
    policy.wait_for_engine("preparing")
    policy.graph.set_parameters("policy", sampler__steps=3)  # while the engine is busy with 2
    policy.observe(3 * STEP, observation(2))
    expected = expected_chunk((0, 0), (0, 1), (1, 2), steps=3)
    np.testing.assert_allclose(policy.chunk(2)[1], expected, atol=0.01)
    (tmp_path / "hold_engine").unlink()
    policy.wait_for_engine("ready")
    policy.observe(4 * STEP, observation(3))
    expected = expected_chunk((0, 0), (0, 1), (1, 2), (2, 3), steps=3)
    np.testing.assert_allclose(policy.chunk(3)[1], expected, atol=0.01)
    policy.wait_for_value("chunks", 4)
    assert policy.values()["engine_state"] == "ready"


def test_in_lockstep_the_world_waits_for_the_engine_of_a_new_sampler(
    start_faulty_policy: Callable[..., Any], expected_chunk: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    policy = start_faulty_policy(synchronous=True).activate()
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    (tmp_path / "hold_engine").touch()
    policy.graph.set_parameters("policy", sampler__steps=2)
    for step in range(1, 9):
        policy.observe((1 + step) * STEP, observation(step))
    policy.wait_for_engine("preparing")
    policy.wait_for_message("active")
    assert len(policy.chunks) == 1
    (tmp_path / "hold_engine").unlink()
    np.testing.assert_allclose(policy.chunk(1)[1], expected_chunk((0, 0), (7, 8), steps=2), atol=0.01)


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_policy_whose_engine_fails_acts_without_it(
    start_faulty_policy: Callable[..., Any],
    expected_chunk: Callable[..., np.ndarray],
    tmp_path: Path,
    synchronous: bool,
) -> None:
    policy = start_faulty_policy(synchronous=synchronous).activate()
    (tmp_path / "no_engine").touch()
    policy.graph.set_parameters("policy", sampler__steps=2)
    policy.observe(STEP, observation(0))
    np.testing.assert_allclose(policy.chunk(0)[1], expected_chunk((0, 0), steps=2), atol=0.01)
    reason = "the policy acts without the engine 'eager', which failed: out of fuel"
    policy.wait_for_message(reason)
    policy.observe(9 * STEP, observation(0))
    policy.chunk(1)
    policy.wait_for_engine("failed")
    assert policy.graph.output(policy.process).count(reason) == 1
    (tmp_path / "no_engine").unlink()
    policy.graph.set_parameters("policy", sampler__steps=3)
    policy.observe(30 * STEP, observation(0))
    policy.chunk(2)
    policy.wait_for_engine("ready")
    policy.wait_for_message("active")


def test_a_parallel_sampler_reports_depth_and_residual(lockstep: Any) -> None:
    options = {
        "sampler__picard__jacobian": "drift",
        "sampler__picard__start": "repeated",
        "sampler__stop__iterations": 2,
    }
    assert lockstep.set_together(sampler__method="picard", **options) == ""
    lockstep.observe(STEP, observation(0))
    lockstep.chunk(0)
    lockstep.wait_for_value("chunks", 1)
    assert lockstep.values()["depth"] == "2"
    assert float(lockstep.values()["residual"]) > 0


WARM_START = SamplerConfig(
    "picard",
    "ddim",
    4,
    stop=StopConfig(iterations=2),
    parallel=ParallelConfig(warm_start="actions_and_noise"),
    picard=PicardConfig("drift", "repeated"),
)


@pytest.mark.parametrize(
    "sampler",
    [
        WARM_START,
        *(SamplerConfig("sequential", "ddim", 4, hand_over=name) for name in ("blend", "inpaint", "guide")),
    ],
    ids=["warm start", "blend", "inpaint", "guide"],
)
def test_a_chunk_continues_the_one_before_as_the_library_does(
    lockstep: Any, checkpoints: Path, sampler: SamplerConfig
) -> None:
    values = {name.replace(".", "__"): value for name, _, value in sampler_options(sampler)}
    assert lockstep.set_together(**values) == ""
    policy = DiffusionPolicy.load(checkpoints / "tiny.safetensors", sampler=sampler)
    generator = torch.Generator().manual_seed(0)

    def expected(first: float, second: float, previous: Prediction | None = None) -> Prediction:
        observations = torch.from_numpy(np.stack([observation(first), observation(second)])).float()[None]
        return policy.predict(observations, generator=generator, previous=previous, executed=8)

    def assert_chunk(number: int, prediction: Prediction) -> None:
        within_limits = prediction.chunk[0].numpy().clip(0, 512)
        np.testing.assert_allclose(lockstep.chunk(number)[1], within_limits, atol=0.01)

    lockstep.observe(STEP, observation(0))
    begun = expected(0, 0)
    assert_chunk(0, begun)
    for step in range(1, 9):
        lockstep.observe((1 + step) * STEP, observation(step))
    noises = generator.get_state()
    assert_chunk(1, expected(7, 8, begun))
    generator.set_state(noises)
    with pytest.raises(AssertionError):  # without the one before it is something else
        assert_chunk(1, expected(7, 8))
    assert lockstep.graph.call(Trigger, "/policy/reset").success
    lockstep.observe(STEP, observation(0))
    assert_chunk(2, begun)


def test_chunks_that_a_deadline_cut_short_are_counted(lockstep: Any) -> None:
    options = {"sampler__picard__jacobian": "drift", "sampler__picard__start": "repeated"}
    assert lockstep.set_together(sampler__method="picard", **options, sampler__stop__deadline_ms=0.001) == ""
    lockstep.observe(STEP, observation(0))
    lockstep.chunk(0)
    lockstep.wait_for_value("deadline_cuts", 1)
    assert lockstep.values()["depth"] == "1"
    assert int(lockstep.values()["network_evaluations"]) >= 1


def test_reset_forgets_history_and_noises(lockstep: Any) -> None:
    lockstep.observe(STEP, observation(0))
    _, first = lockstep.chunk(0)
    assert lockstep.graph.call(Trigger, "/policy/reset").success
    lockstep.observe(STEP, observation(0))
    _, again = lockstep.chunk(1)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("start", [30 * STEP, STEP // 2])
def test_a_restarted_world_restarts_history_and_noises(lockstep: Any, start: int) -> None:
    lockstep.observe(10 * STEP, observation(0))
    _, first = lockstep.chunk(0)
    lockstep.observe(start, observation(0))
    stamp, again = lockstep.chunk(1)
    assert stamp == start
    np.testing.assert_array_equal(first, again)


def test_a_lost_chunk_is_sent_again_while_the_world_waits(lockstep: Any) -> None:
    lockstep.observe(STEP, observation(0))
    _, first = lockstep.chunk(0)

    def ask() -> bool:
        lockstep.observe(STEP, observation(0))
        return len(lockstep.chunks) > 1

    lockstep.graph.spin_until(ask, "the chunk again")
    stamp, again = lockstep.chunk(1)
    assert stamp == STEP
    np.testing.assert_array_equal(first, again)
    lockstep.wait_for_value("chunks", 1)
    assert lockstep.values()["chunks"] == "1"


def test_points_outside_of_the_limits_are_clamped(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(synchronous=True, lower_limits=[200.0, 0.0], upper_limits=[201.0, 512.0]).activate()
    policy.observe(STEP, observation(0))
    _, chunk = policy.chunk(0)
    assert (chunk[:, 0] >= 200).all()
    assert (chunk[:, 0] <= 201).all()
    policy.wait_for_value("clamped_points", 1)


def test_inference_does_not_queue_up(start_faulty_policy: Callable[..., Any], tmp_path: Path) -> None:
    policy = start_faulty_policy().activate()
    (tmp_path / "hold").touch()
    for number in range(1, 6):  # each in a restarted world, so that each is due
        policy.observe(10 * number * STEP, observation(0))
        policy.send_pusher(10 * number * STEP, [np.nan, np.nan])
        policy.wait_for_value("rejected_observations", number)  # it has seen them all
    (tmp_path / "hold").unlink()
    assert policy.chunk(0)[0] == 50 * STEP
    policy.wait_for_value("chunks", 1)
    assert policy.values()["chunks"] == "1"


def test_half_an_observation_does_not_start_a_chunk(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(use_sim_time=False, keypoints__max_age=60.0, pusher__max_age=60.0).activate()
    policy.observe(policy.now(), observation(0))
    policy.chunk(0)
    policy.observe(policy.now(), observation(0))  # early in the chunk, which lasts 0.8 s
    heard = len(policy.diagnostics)

    def keypoints_alone() -> bool:
        policy.send_keypoints(policy.now(), observation(0)[:18])
        return len(policy.diagnostics) >= heard + 3

    policy.graph.spin_until(keypoints_alone, "three reports, one a second")
    assert len(policy.chunks) == 1
    policy.observe(policy.now(), observation(0))
    assert policy.chunk(1)[0] > policy.chunk(0)[0] + 8 * STEP


def test_services_answer_while_inference_runs(
    start_faulty_policy: Callable[..., Any], tmp_path: Path
) -> None:
    policy = start_faulty_policy().activate()
    (tmp_path / "hold").touch()
    policy.observe(STEP, observation(0))
    for seed in range(3):
        policy.graph.set_parameters("policy", seed=seed)
        assert policy.parameters("seed") == {"seed": seed}
        assert policy.state() == "active"
    policy.wait_for_message("active")
    assert not policy.chunks
    (tmp_path / "hold").unlink()
    assert policy.chunk(0)[0] == STEP


def test_a_chunk_in_computation_is_dropped_at_deactivation(
    start_faulty_policy: Callable[..., Any], tmp_path: Path
) -> None:
    policy = start_faulty_policy().activate()
    (tmp_path / "hold").touch()
    policy.observe(STEP, observation(0))
    policy.send_pusher(STEP, [np.nan, np.nan])
    policy.wait_for_value("rejected_observations", 1)
    assert policy.transition("deactivate")
    assert policy.transition("activate")
    policy.observe(50 * STEP, observation(1))
    (tmp_path / "hold").unlink()
    assert policy.chunk(0)[0] == 50 * STEP
    policy.wait_for_value("chunks", 1)
    assert policy.values()["chunks"] == "1"


def test_latency_counts_from_the_arrival_even_if_the_policy_was_busy_then(
    start_faulty_policy: Callable[..., Any], tmp_path: Path
) -> None:
    policy = start_faulty_policy(use_sim_time=False, keypoints__max_age=60.0, pusher__max_age=60.0).activate()
    policy.observe(policy.now(), observation(0))
    policy.chunk(0)
    (tmp_path / "hold").touch()
    for _ in range(
        15
    ):  # from one of them the second chunk is computed, slowly, and from the last one the third
        policy.graph.spin_for(0.1)
        policy.observe(policy.now(), observation(0))
    policy.graph.spin_for(0.6)
    (tmp_path / "hold").unlink()
    policy.wait_for_value("late_chunks", 1)
    policy.chunk(1)
    policy.wait_for_value("chunks", 2)
    assert float(policy.values()["latency_p50_ms"]) > 500
