"""The parameters of the policy node in use: declared, validated, read as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from policy import DiffusionPolicy, SamplerConfig
from policy.sampling.config import sampler_from_options
from ros_nodes.commands.chunk_messages import JointLimits
from ros_nodes.observations.observation_history import SourceSlice
from ros_nodes.observations.observation_messages import MESSAGE_TYPES
from ros_nodes.policy_node.parameter_specs import (
    NODE_PARAMETERS,
    SAMPLER_PARAMETERS,
    ParameterSpec,
    source_parameters,
)

SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """One source of observations.

    Raises:
        ValueError: for joints or fields that do not fit the type, or the size.
    """

    slice: SourceSlice
    topic: str
    type: str
    joints: tuple[str, ...]
    fields: tuple[str, ...]
    frame_id: str
    reliability: str

    def __post_init__(self) -> None:
        name, size, kind = self.slice.name, self.slice.size, MESSAGE_TYPES[self.type]
        if not kind.fields:
            return
        if not set(self.fields) <= set(kind.fields):
            raise ValueError(
                f"{name}.fields must be among {', '.join(kind.fields)} for {self.type}, got {list(self.fields)}"
            )
        if kind.by_joint and size != len(self.joints) * len(self.fields):
            raise ValueError(
                f"{name}.size is {size}, but {len(self.joints)} joints × {len(self.fields)} fields are "
                f"{len(self.joints) * len(self.fields)} numbers"
            )


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """The parameters that are fixed while the node is configured; times in ns."""

    checkpoint: str
    pcm: str
    device: str
    engine: str
    threads: int
    control_period_ns: int
    synchronous: bool
    inference_margin_ns: int
    range_margin: float
    restart_gap_ns: int
    joints: JointLimits
    output: str
    trajectory_topic: str
    action_name: str
    frame_id: str
    sources: tuple[SourceSettings, ...]


class PolicyParameters:
    """The policy node's parameters.

    Args:
        node: that declares them.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._specs: dict[str, ParameterSpec] = {}
        self._policy: DiffusionPolicy | None = None
        node.add_on_set_parameters_callback(self._on_set)
        self._declare(NODE_PARAMETERS)
        self._declare_sources()

    def hold(self, policy: DiffusionPolicy | None) -> None:
        """From now on refuse changes that do not fit this policy in use; None allows all of them again."""
        self._policy = policy

    def sampler(self) -> SamplerConfig:
        """The sampler that is asked for."""
        return sampler_from_options({spec.name: self._value(spec.name) for spec in SAMPLER_PARAMETERS})

    def resolved_sampler(self) -> SamplerConfig:
        """The sampler with nothing left to choose, by the policy that is in use."""
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
        return PolicySettings(
            checkpoint=value("checkpoint"),
            pcm=value("pcm"),
            device=value("device"),
            engine=value("engine"),
            threads=value("threads"),
            control_period_ns=_nanoseconds(value("control_period")),
            synchronous=value("synchronous"),
            inference_margin_ns=_nanoseconds(value("inference_margin")),
            range_margin=value("range_margin"),
            restart_gap_ns=_nanoseconds(value("restart_gap")),
            joints=JointLimits(
                tuple(value("joints")), tuple(value("lower_limits")), tuple(value("upper_limits"))
            ),
            output=value("output"),
            trajectory_topic=value("trajectory_topic"),
            action_name=value("action_name"),
            frame_id=value("frame_id"),
            sources=tuple(self._source(name) for name in self._source_names()),
        )

    def _source(self, name: str) -> SourceSettings:
        value = {spec.name.split(".", 1)[1]: self._value(spec.name) for spec in source_parameters(name)}
        return SourceSettings(
            slice=SourceSlice(
                name=name,
                first=value["first"],
                size=value["size"],
                max_age_ns=_nanoseconds(value["max_age"]),
            ),
            topic=value["topic"],
            type=value["type"],
            joints=tuple(value["joints"]),
            fields=tuple(value["fields"]),
            frame_id=value["frame_id"],
            reliability=value["reliability"],
        )

    def _source_names(self) -> list[str]:
        names = list(self._value("observation_sources"))
        if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
            raise ValueError(f"observation_sources must be distinct simple names, got {names}")
        return names

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _declare_sources(self) -> None:
        for name in self._source_names():
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
        # While the parameters are being declared, later ones are not there yet and have their defaults.
        declared = {name: self._value(name) for name in names if self._node.has_parameter(name)}
        sampler = sampler_from_options(
            declared | {name: value for name, value in changes.items() if name in names}
        )
        if self._policy is not None:
            _ = replace(self._policy, sampler=sampler).sample


def _nanoseconds(seconds: float) -> int:
    return round(seconds * SECOND)
