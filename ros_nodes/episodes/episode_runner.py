"""Runs episodes of the policy node in the simulator node, and reports them as `pcm-evaluate` does."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rcl_interfaces.srv import GetParameters, ListParameters, SetParameters
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from policy.checkpoint import file_sha256
from policy.robot.times import ImpossibleTimeError, time_ns
from ros_nodes.episodes.episode_log import EpisodeLog
from ros_nodes.reception.bounded_subscription import subscribe_bounded
from ros_nodes.reception.clock import ClockGuard
from ros_nodes.reception.refusals import Refusals
from ros_nodes.simulator.simulator_messages import EPISODE_FIELDS
from training.evaluation.episode import Episode
from training.evaluation.rollout import Rollout
from training.evaluation.summary import format_summary, summarize, write_summary
from training.provenance import code_version, command_line, machine
from training.seeds import combine_seeds

POLICY = "policy"
OBSERVATION_TOPIC = "joint_states"


class Unanswered(RuntimeError):
    """A node that is not there, or does not answer or comply; the message says which."""


class EpisodeRunner(ClockGuard, Node):
    """The episode runner node: `run` runs all episodes."""

    def __init__(self) -> None:
        super().__init__("episode_runner")
        for name, default, low, high, description in (
            ("episodes", 10, 1, 10**6, "number of episodes"),
            ("first_seed", 100000, 0, 2**32 - 1, "initial state of the first episode; one more per episode"),
            ("max_steps", 200, 1, 10**6, "control steps per episode"),
            ("noise_seed", 0, 0, 2**31 - 1, "seed of the policy's noises"),
        ):
            limits = IntegerRange(from_value=low, to_value=high, step=1)
            self.declare_parameter(
                name, default, ParameterDescriptor(description=description, integer_range=[limits])
            )
        for name, seconds, description in (
            ("chunk_timeout", 5.0, "seconds without a chunk after which an episode has failed"),
            ("startup_timeout", 120.0, "seconds to wait for the simulator and an active policy at the start"),
        ):
            span = FloatingPointRange(from_value=0.1, to_value=1e6)
            self.declare_parameter(
                name, seconds, ParameterDescriptor(description=description, floating_point_range=[span])
            )
        for name, text, description in (
            ("output_dir", "outputs/ros", "where summary.json is written"),
            ("simulator", "pusht_simulator", "name of the simulator's node; fixed"),
            ("controller", "pusher_controller", "name of its controller, which takes the chunks; fixed"),
        ):
            self.declare_parameter(
                name, text, ParameterDescriptor(description=description, read_only=name != "output_dir")
            )
        self._simulator = self._value("simulator")
        self._status_topic = f"{self._simulator}/episode"
        self._trajectory_topic = f"{self._value('controller')}/joint_trajectory"
        self._control_period = 0.0  # until the simulator is there and says it
        self._log: EpisodeLog | None = None
        self._policy_parameters: dict[str, Any] = {}
        self._diagnostics: dict[str, str] = {}
        self._refusals = Refusals("message", self.get_logger().warning)
        for message_type, topic, callback, depth in (
            (Float64MultiArray, self._status_topic, self._on_status, 1000),
            (JointState, OBSERVATION_TOPIC, self._on_observation, 100),
            (JointTrajectory, self._trajectory_topic, self._on_trajectory, 100),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
        ):
            subscribe_bounded(
                self,
                message_type,
                topic,
                callback=callback,
                refuse=partial(self._refusals.add, topic),
                qos=QoSProfile(depth=depth),
            )

    def run(self) -> dict[str, Any]:
        """Run all episodes and write the summary, which is also returned.

        An interruption leaves the summary of the episodes that are over.

        Raises:
            Unanswered: if the simulator or an active policy does not appear.
        """
        self._wait_until_ready()
        first = self._value("first_seed")
        episodes: list[Episode] = []
        failures: dict[int, str] = {}
        try:
            for seed in range(first, first + self._value("episodes")):
                episode, failure = self._run_episode(seed)
                episodes.append(episode)
                if failure is not None:
                    failures[seed] = failure
                    self.get_logger().error(f"episode of seed {seed} failed: {failure}")
                else:
                    self.get_logger().info(f"episode of seed {seed}: maximum reward {episode.max_reward:.3f}")
        finally:
            if episodes:
                summary = self._summary(episodes, failures)
                write_summary(self.summary_path, summary)
        return summary

    @property
    def summary_path(self) -> Path:
        return Path(self._value("output_dir")) / "summary.json"

    def _run_episode(self, seed: int) -> tuple[Episode, str | None]:
        """The episode, and why it failed, if it did."""
        timeout = self._value("chunk_timeout")
        log = self._new_log(seed, timeout)
        try:
            noise = combine_seeds(self._value("noise_seed"), seed)
            self._set_parameters(POLICY, timeout, seed=noise)
            self._trigger(POLICY, timeout)
            self._set_parameters(self._simulator, timeout, seed=seed, max_steps=self._value("max_steps"))
            log = self._log = self._new_log(seed, timeout)
            self._trigger(self._simulator, timeout)
            failure: str | None = None
            while not log.ended and failure is None:
                rclpy.spin_once(self, timeout_sec=0.1)
                failure = log.failure(time.monotonic())
            return log.episode(), log.failure(time.monotonic())
        except (Unanswered, ValueError) as error:
            return log.episode(), str(error)
        finally:
            self._log = None

    def _new_log(self, seed: int, timeout: float) -> EpisodeLog:
        return EpisodeLog(seed, timeout, time.monotonic(), period=self._control_period)

    def _on_status(self, message: Float64MultiArray) -> None:
        if self._log is None:
            return
        if len(message.data) != len(EPISODE_FIELDS):
            detail = f"{len(message.data)} numbers, need {len(EPISODE_FIELDS)}"
            self._refusals.add(self._status_topic, "length", detail)
        elif not all(map(math.isfinite, message.data)):
            self._refusals.add(self._status_topic, "not_finite", f"it holds {list(message.data)}")
        else:
            self._log.hear(message.data, time.monotonic())

    def _on_observation(self, message: JointState) -> None:
        self._hear_of(message, OBSERVATION_TOPIC)

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self._hear_of(message, self._trajectory_topic)

    def _hear_of(self, message: JointState | JointTrajectory, topic: str) -> None:
        """Note when an observation or the chunk for it arrived."""
        if self._log is None:
            return
        try:
            stamp = time_ns(message.header.stamp)
        except ImpossibleTimeError as error:
            self._refusals.add(topic, "time", f"stamped {error}")
            return
        note = self._log.observe if topic == OBSERVATION_TOPIC else self._log.answer
        note(stamp, time.monotonic())

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.rpartition("/")[2] == POLICY:
                self._diagnostics = {pair.key: pair.value for pair in status.values}

    def _summary(self, episodes: list[Episode], failures: dict[int, str]) -> dict[str, Any]:
        latencies = [seconds for episode in episodes for seconds in episode.chunk_seconds]
        checkpoint = Path(self._policy_parameters["checkpoint"])
        return {
            **summarize(Rollout(tuple(episodes), tuple(latencies)), chunk_time="latency_ms"),
            "failures": {str(seed): reason for seed, reason in failures.items()},
            "config": {
                name: self._value(name)
                for name in ("episodes", "first_seed", "max_steps", "noise_seed", "chunk_timeout")
            },
            "checkpoint": {"sha256": file_sha256(checkpoint) if checkpoint.is_file() else None},
            "policy_parameters": self._policy_parameters,
            "policy_diagnostics": {key: _number(value) for key, value in self._diagnostics.items()},
            "code": code_version(),
            "command": command_line(),
            "machine": machine(torch.device("cpu")),
        }

    def _read_policy_parameters(self, timeout: float) -> dict[str, Any]:
        names = self._call(ListParameters, f"{POLICY}/list_parameters", timeout=timeout)
        request = GetParameters.Request(names=names.result.names)
        values = self._call(GetParameters, f"{POLICY}/get_parameters", request, timeout=timeout).values
        read = [parameter_value_to_python(value) for value in values]
        return {
            name: value if isinstance(value, (bool, int, float, str)) else _as_list(value)
            for name, value in zip(request.names, read, strict=True)
            if value is not None
        }

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._value("startup_timeout")

        def left() -> float:
            return deadline - time.monotonic()

        request = GetParameters.Request(names=["control_period"])
        answer = self._call(GetParameters, f"{self._simulator}/get_parameters", request, timeout=left())
        self._control_period = answer.values[0].double_value
        while (
            self._call(GetState, f"{POLICY}/get_state", timeout=left()).current_state.id
            != State.PRIMARY_STATE_ACTIVE
        ):
            if left() < 0:
                raise Unanswered("the policy does not become active")
            self._spin_until(lambda: False, min(0.2, max(0.0, left())))
        self._spin_until(lambda: self.count_publishers(self._status_topic), left())
        self._policy_parameters = self._read_policy_parameters(left())

    def _set_parameters(self, node: str, timeout: float, **values: int) -> None:
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        )
        response = self._call(SetParameters, f"{node}/set_parameters", request, timeout=timeout)
        for result in response.results:
            if not result.successful:
                raise Unanswered(f"{node} refuses a parameter: {result.reason}")

    def _trigger(self, node: str, timeout: float) -> None:
        response = self._call(Trigger, f"{node}/reset", timeout=timeout)
        if not response.success:
            raise Unanswered(f"{node} refuses to reset: {response.message}")

    def _call(self, service_type: Any, name: str, request: Any = None, *, timeout: float) -> Any:
        """The response of a service; without a request, to an empty one."""
        client = self.create_client(service_type, name)
        try:
            deadline = time.monotonic() + timeout
            if not self._spin_until(client.service_is_ready, timeout):
                raise Unanswered(f"service {name} is not there")
            future = client.call_async(request or service_type.Request())
            if not self._spin_until(future.done, deadline - time.monotonic()):
                raise Unanswered(f"service {name} does not answer")
            return future.result()
        finally:
            self.destroy_client(client)

    def _spin_until(self, condition: Callable[[], Any], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            rclpy.spin_once(self, timeout_sec=0.05)
        return True

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def _as_list(values: Iterable[Any]) -> list[Any]:
    """What JSON knows of an array: a list, with null for NaN, as a limit is that the task has."""
    return [None if value != value else value for value in values]


def _number(text: str) -> float | str:
    """A diagnostic's value as a number, where it is one that JSON has."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def main(arguments: list[str] | None = None) -> int:
    # rclpy ends the context at Ctrl-C; a KeyboardInterrupt on top could strike, and get lost, anywhere.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rclpy.init(args=arguments)
    try:
        runner = EpisodeRunner()
        summary = runner.run()
        print(format_summary(summary))
        for seed, reason in summary["failures"].items():
            print(f"episode of seed {seed} failed: {reason}")
        print(f"summary: {runner.summary_path}", flush=True)
        return 1 if summary["failures"] else 0
    except ExternalShutdownException:
        return 130
    except Exception as error:
        # A signal ends the context under whatever the node is doing with it.
        if not rclpy.ok():
            return 130
        if not isinstance(error, (Unanswered, OSError, ParameterException)):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
