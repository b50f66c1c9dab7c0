"""The parameters of the policy node in use: declared, validated, read as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from policy import SamplerConfig
from policy.exported import ExportedPolicy
from policy.robot.description import COMMAND, Robot
from policy.robot.parameters import SOURCES, robot_from_parameters
from policy.robot.times import SECOND
from policy.sampling.config import sampler_from_options
from ros_nodes.policy_node.loading import LoadedPolicy
from ros_nodes.policy_node.parameter_specs import (
    NODE_PARAMETERS,
    SAMPLER_PARAMETERS,
    ParameterSpec,
    source_parameters,
)


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """The parameters that cannot change while the node is configured; times in ns."""

    checkpoint: str
    pcm: str
    device: str
    engine: str
    threads: int
    synchronous: bool
    inference_margin_ns: int
    velocities: bool
    accelerations: bool
    tail_points: int
    over_limit: str
    frame_id: str
    robot: Robot


class PolicyParameters:
    """The policy node's parameters.

    Args:
        node: node that declares them.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._specs: dict[str, ParameterSpec] = {}
        self._policy: LoadedPolicy | None = None
        node.add_on_set_parameters_callback(self._on_set)
        self._declare(NODE_PARAMETERS)
        self._declare_sources()

    def hold(self, policy: LoadedPolicy | None) -> None:
        """Refuse changes that do not fit this policy from now on; None allows all changes again."""
        self._policy = policy

    def sampler(self) -> SamplerConfig:
        """The sampler that is asked for."""
        return sampler_from_options({spec.name: self._value(spec.name) for spec in SAMPLER_PARAMETERS})

    def resolved_sampler(self) -> SamplerConfig:
        """The sampler with nothing left to choose, by the policy that is in use."""
        if isinstance(self._policy, ExportedPolicy):
            return self._policy.sampler
        sampler = self.sampler()
        return sampler if self._policy is None else replace(self._policy, sampler=sampler).resolved_sampler

    def seed(self) -> int:
        return int(self._value("seed"))

    def settings(self) -> PolicySettings:
        """All parameters that need a configure to change.

        Raises:
            ValueError: naming the first that does not fit the others.
        """
        self._declare_sources()
        value = self._value
        if not value("checkpoint"):
            raise ValueError("parameter checkpoint is empty, must name the policy's file")
        if value("trajectory.accelerations") and not value("trajectory.velocities"):
            raise ValueError(
                "trajectory.accelerations needs trajectory.velocities: controllers ignore them without"
            )
        return PolicySettings(
            checkpoint=value("checkpoint"),
            pcm=value("pcm"),
            device=value("device"),
            engine=value("engine"),
            threads=value("threads"),
            synchronous=value("synchronous"),
            inference_margin_ns=round(value("inference_margin") * SECOND),
            velocities=value("trajectory.velocities"),
            accelerations=value("trajectory.accelerations"),
            tail_points=value("trajectory.tail_points"),
            over_limit=value("trajectory.over_limit"),
            frame_id=value("frame_id"),
            robot=robot_from_parameters({name: value(name) for name in self._specs}),
        )

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _declare_sources(self) -> None:
        """Those of the commands are declared for people alone: recorders and importers use them."""
        for name in (*self._value(SOURCES), COMMAND):
            if name.isidentifier():  # otherwise it is refused at configure
                self._declare(source_parameters(name))

    def _declare(self, specs: Iterable[ParameterSpec]) -> None:
        for spec in specs:
            self._specs[spec.name] = spec
            if not self._node.has_parameter(spec.name):
                self._node.declare_parameter(spec.name, spec.default, spec.descriptor())

    def _on_set(self, changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            self._check({change.name: change.value for change in changes})
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _check(self, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            spec = self._specs.get(name)
            if spec is None:
                continue
            if self._policy is not None and not spec.live:
                raise ValueError(
                    f"{name} is in use and takes effect only at configure: deactivate and clean up first"
                )
            if spec.choices and value not in spec.choices:
                raise ValueError(f"{name} must be one of {', '.join(spec.choices)}, got {value!r}")
        self._check_sampler(changes)

    def _check_sampler(self, changes: Mapping[str, Any]) -> None:
        """Check the sampler as a whole, since its options depend on each other."""
        names = {spec.name for spec in SAMPLER_PARAMETERS}
        if not names & changes.keys():
            return
        if isinstance(self._policy, ExportedPolicy):
            raise ValueError("the sampler is the policy server's, and cannot be changed here")
        # While the parameters are being declared, later ones are not there yet and have their defaults.
        declared = {name: self._value(name) for name in names if self._node.has_parameter(name)}
        sampler = sampler_from_options(
            declared | {name: value for name, value in changes.items() if name in names}
        )
        if self._policy is not None:
            _ = replace(self._policy, sampler=sampler).prepared_sampler.sample
