"""The managed node's states: what each transition does, again and again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from policy_peer import STEP, observation
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from policy import DiffusionPolicy
from policy.pcm import PCM, save_pcm, weights_sha256


def refusal(policy: Any, name: str, value: Any) -> str:
    """Why a parameter may not be set."""
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    result = policy.graph.call(SetParameters, "/policy/set_parameters", request).results[0]
    assert not result.successful
    return str(result.reason)


def test_it_acts_only_while_active(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(synchronous=True)
    assert policy.state() == "unconfigured"
    assert not policy.graph.call(Trigger, "/policy/reset").success
    assert policy.transition("configure")
    assert policy.state() == "inactive"
    policy.graph.spin_until(policy.pusher.get_subscription_count, "the node listens")
    policy.observe(STEP, observation(0))
    policy.wait_for_message("inactive")
    assert policy.transition("activate")
    assert policy.state() == "active"
    policy.observe(2 * STEP, observation(0))
    assert policy.chunk(0)[0] == 2 * STEP
    assert policy.transition("deactivate")
    policy.observe(20 * STEP, observation(0))
    policy.wait_for_message("inactive")
    assert policy.transition("cleanup")
    assert policy.state() == "unconfigured"
    assert policy.transition("shutdown")
    assert policy.state() == "finalized"
    assert len(policy.chunks) == 1
    assert policy.graph.stop(policy.process) == 0


def test_interrupted_while_active_it_ends_cleanly(start_policy: Callable[..., Any]) -> None:
    policy = start_policy().activate()
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    assert policy.graph.stop(policy.process, signal.SIGTERM) == 0
    assert "Traceback" not in policy.graph.output(policy.process)


def test_memory_and_threads_return_to_where_they_were(start_policy: Callable[..., Any]) -> None:
    policy = start_policy("medium", sampler__steps=1, synchronous=True)
    memory, threads, inside = [], [], []
    for cycle in range(20):
        policy.activate()
        policy.observe(STEP, observation(cycle))
        policy.chunk(cycle)
        inside.append(policy.threads())
        assert policy.transition("deactivate")
        assert policy.transition("cleanup")
        memory.append(policy.memory())
        threads.append(policy.threads())
    assert threads[1:] == threads[:1] * 19
    assert max(inside) > threads[0], "the worker's thread is not seen"
    # The checkpoint has 18 MB; leaking one per cycle would make 270 MB.
    assert memory[-1] - memory[4] < 20e6


def test_transitions_that_the_state_does_not_have_are_refused(start_policy: Callable[..., Any]) -> None:
    policy = start_policy()
    for transition in ("activate", "deactivate", "cleanup", "no_such_transition"):
        assert not policy.transition(transition)
        assert policy.state() == "unconfigured"
    assert policy.transition("configure")


def test_parameters_that_do_not_fit_fail_configure(start_policy: Callable[..., Any]) -> None:
    policy = start_policy()
    cases = {
        "parameter checkpoint is empty": {"checkpoint": ""},
        "gpu7": {"device": "gpu7"},
        "steps must be in 1 … 100": {"sampler__steps": 500},
        "joints are 1 (a), the task 'pusht' commands 2 (x, y)": {"joints": ["a"]},
        "lower_limits are 1, joints are 2 (pusher_x, pusher_y)": {"lower_limits": [0.0]},
        "limits of joint pusher_y must increase, got 600 … 512": {"lower_limits": [0.0, 600.0]},
        "observation_sources is empty, must name the sources": {"observation_sources": [""]},
        "must have a simple name, such as arm, got 'two words'": {"observation_sources": ["two words"]},
        "part 'pusher' of the task 'pusht' has no source: observation_sources are keypoints": {
            "observation_sources": ["keypoints"]
        },
        "part 'pusher' has 2 numbers (x, y), its source gives 1: 1 joints × 1 fields": {
            "pusher__joints": ["pusher_x"]
        },
        "keypoints.type must be one of sensor_msgs/JointState, ": {"keypoints__type": "std_msgs/String"},
        "keypoints.fields must be among point.x, point.y, point.z": {"keypoints__fields": ["z"]},
        "control_period is 0.2 s, the task 'pusht' has 10 Hz, which is 0.1 s": {"control_period": 0.2},
        "pusher.fields must be among position, velocity, effort": {"pusher__fields": ["torque"]},
        "two words": {"keypoints__topic": "two words"},
    }
    names = [name.replace("__", ".") for parameters in cases.values() for name in parameters]
    before = policy.parameters(*names)
    for reason, parameters in cases.items():
        for name, value in parameters.items():
            policy.graph.set_parameters("policy", **{name: value})
        assert not policy.transition("configure")
        assert reason in policy.graph.output(policy.process)
        assert policy.state() == "unconfigured"
        policy.graph.set_parameters("policy", **before)
    policy.activate().observe(STEP, observation(0))
    policy.chunk(0)


def test_parameters_of_the_wrong_kind_end_the_process_with_one_line(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(output="smoke_signals")
    policy.graph.spin_until(lambda: policy.process.poll() is not None, "the process ends")
    assert policy.process.returncode == 1
    output = policy.graph.output(policy.process)
    assert "output must be one of topic, follow_joint_trajectory, got 'smoke_signals'" in output
    assert "Traceback" not in output


def test_changes_are_validated(start_policy: Callable[..., Any]) -> None:
    policy = start_policy().activate()
    assert "steps must be in 1 … 100 (training timesteps), got 200" in refusal(policy, "sampler.steps", 200)
    assert "sampler.method must be one of" in refusal(policy, "sampler.method", "magic")
    assert "out of range" in refusal(policy, "sampler.steps", -1)
    assert "out of range" in refusal(policy, "seed", -1)
    assert "control_period is in use" in refusal(policy, "control_period", 0.2)
    assert "must be one of" in refusal_after_cleanup(policy, "output", "smoke_signals")
    policy.graph.set_parameters("policy", control_period=0.2)


def test_an_option_of_another_method_is_refused_by_name(start_policy: Callable[..., Any]) -> None:
    policy = start_policy().activate()
    reason = "sampler.stop.iterations=2 belongs to the methods picard, parasolver, pcm, not to sequential"
    assert refusal(policy, "sampler.stop.iterations", 2) == reason
    assert "sampler.method=pcm needs a PCM" in refusal(policy, "sampler.method", "pcm")
    options = {"sampler__stop__iterations": 2, "sampler__picard__jacobian": "drift"}
    assert policy.set_together(**options) == reason
    assert policy.parameters("sampler.stop.iterations") == {"sampler.stop.iterations": 0}
    # Together with their method they are right, whatever the order.
    assert policy.set_together(**options, sampler__method="picard") == ""
    assert refusal(policy, "sampler.method", "sequential") == reason
    assert policy.set_together(sampler__solver="dpmpp_2m", sampler__method="parasolver") == (
        "sampler.picard.jacobian=drift belongs to the methods picard, pcm, not to parasolver"
    )
    policy.observe(STEP, observation(0))
    policy.chunk(0)
    policy.wait_for_value("chunks", 1)
    used = {
        name: policy.values()[f"sampler.{name}"] for name in ("method", "solver", "steps", "picard.start")
    }
    assert used == {"method": "picard", "solver": "ddim", "steps": "4", "picard.start": "fresh"}
    sequential = {"sampler__stop__iterations": 0, "sampler__picard__jacobian": "auto"}
    assert policy.set_together(**sequential, sampler__method="sequential") == ""


def test_an_option_of_another_method_ends_the_process_with_one_line(start_policy: Callable[..., Any]) -> None:
    policy = start_policy(sampler__method="picard", sampler__parasolver__sub_intervals=2)
    policy.graph.spin_until(lambda: policy.process.poll() is not None, "the process ends")
    assert policy.process.returncode == 1
    output = policy.graph.output(policy.process)
    reason = "sampler.parasolver.sub_intervals=2 belongs to the method parasolver, not to picard"
    assert reason in output
    assert "Traceback" not in output


def refusal_after_cleanup(policy: Any, name: str, value: Any) -> str:
    assert policy.transition("deactivate")
    assert policy.transition("cleanup")
    return refusal(policy, name, value)


def test_every_parameter_is_described_and_documented(start_policy: Callable[..., Any]) -> None:
    graph = start_policy().graph
    names = graph.call(ListParameters, "/policy/list_parameters").result.names
    own = [name for name in names if name not in {"use_sim_time", "start_type_description_service"}]
    assert len(own) > 30
    request = DescribeParameters.Request(names=own)
    for descriptor in graph.call(DescribeParameters, "/policy/describe_parameters", request).descriptors:
        assert descriptor.description, descriptor.name
        assert "takes effect at the next" in descriptor.additional_constraints
    documentation = (Path(__file__).resolve().parents[3] / "docs" / "ros.md").read_text()
    for name in own:
        source, _, rest = name.partition(".")
        documented = f"<source>.{rest}" if source in {"keypoints", "pusher", "command"} else name
        assert f"| `{documented}` |" in documentation, f"docs/ros.md does not name {documented}"


def test_a_pcm_is_loaded_with_the_policy(
    start_policy: Callable[..., Any], checkpoints: Path, tmp_path: Path
) -> None:
    network = DiffusionPolicy.load(checkpoints / "tiny.safetensors").network
    pcm = PCM(
        network,
        weights="full",
        base_sha256=weights_sha256(network),
        solver="dpmpp_2m",
        steps=4,
        jacobian="drift",
        start="repeated",
        iterations=2,
    )
    save_pcm(tmp_path / "pcm.safetensors", pcm)
    policy = start_policy(sampler__method="pcm", sampler__steps=0, sampler__stop__iterations=3)
    assert not policy.transition("configure")
    assert "sampler.method=pcm needs a PCM" in policy.graph.output(policy.process)
    policy.graph.set_parameters("policy", pcm=str(tmp_path / "missing.safetensors"))
    assert not policy.transition("configure")
    assert "missing.safetensors" in policy.graph.output(policy.process)
    policy.graph.set_parameters("policy", pcm=str(tmp_path / "pcm.safetensors"))
    policy.activate().observe(STEP, observation(0))
    policy.chunk(0)
    policy.wait_for_value("chunks", 1)
    assert policy.values()["depth"] == "3"
    trained_for = {"solver": "dpmpp_2m", "steps": "4", "picard.jacobian": "drift", "picard.start": "repeated"}
    resolved = {"method": "pcm", **trained_for, "pcm.space": "feature", "stop.iterations": "3"}
    assert {name: policy.values()[f"sampler.{name}"] for name in resolved} == resolved
    assert policy.parameters("sampler.solver", "sampler.steps") == {
        "sampler.solver": "auto",
        "sampler.steps": 0,
    }
    assert "the PCM was trained for" not in policy.graph.output(policy.process)
    policy.graph.set_parameters("policy", sampler__steps=3)
    policy.observe(9 * STEP, observation(8))
    policy.chunk(1)
    assert "sampler.steps is 3, the PCM was trained for 4" in policy.graph.output(policy.process)
