"""What an exported policy says of itself, as JSON in the metadata of its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from policy.config import PolicyConfig
from policy.normalizer import Range
from policy.runtime.chunk_function import ChunkFunction
from policy.sampling import PartialConfig, SamplerConfig, sampler_from_options, sampler_options
from policy.task import Task, task_from_values, task_values

EXPORT_FORMAT = "pcm_policy.exported_policy/2"
METADATA_KEY = "pcm_policy"
PRECISIONS = ("float32", "float16", "int8")

MEANINGS: Mapping[str, str] = {
    "observations": "newest observations, oldest first",
    "noise": "standard normal, drawn anew for each chunk",
    "further_noise": "standard normal, drawn anew for each chunk",
    "previous_actions": "actions of the chunk before",
    "previous_noise": "noise that the chunk before came from",
    "chunk": "actions to execute from the newest observation on",
    "actions": "actions over the whole horizon, which begins at the oldest observation",
    "residual": "root mean square by which the last iteration moved the normalised actions",
    "actions_noise": "noise that the actions came from, previous_noise of the next chunk",
}


class ExportError(RuntimeError):
    """A file that is no exported policy, or one that cannot be written. The message names the file."""


@dataclass(frozen=True, kw_only=True)
class GraphTensor:
    """An input or output of the graph.

    Attributes:
        name: of the input or output.
        shape: without the batch, which is the first dimension, of any size.
        meaning: in words.
        numbers, units: name and unit of each number along the last dimension; empty if they have none.
    """

    name: str
    shape: tuple[int, ...]
    meaning: str
    numbers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shape", "numbers", "units"):  # JSON knows only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def __str__(self) -> str:
        numbers = [
            f"{name} [{unit}]" if unit else name for name, unit in zip(self.numbers, self.units, strict=True)
        ]
        return f"{self.meaning}: {', '.join(numbers)}" if numbers else self.meaning


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an exported policy says of itself.

    Attributes:
        task: what is observed and commanded.
        config: shapes of the policy.
        sampler: its sampler, resolved.
        start, executed, delay, depth, network_evaluations: see `ChunkFunction`.
        observed_minimum, observed_maximum: what training saw of each number of an observation, in its unit.
        precision: of the networks, one of `PRECISIONS`. All inputs and outputs are float32.
        inputs, outputs: of the graph, in order.
        provenance: hashes of the files that it was made from, code and command.
        checked: how far it is from the policy, and rewards, as measured when it was written.
    """

    task: Task
    config: PolicyConfig
    sampler: SamplerConfig
    start: str
    executed: int
    delay: int
    depth: int
    network_evaluations: int
    observed_minimum: tuple[float, ...]
    observed_maximum: tuple[float, ...]
    precision: str
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    checked: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("observed_minimum", "observed_maximum"):
            limits = tuple(map(float, getattr(self, name)))
            if len(limits) != self.task.observation_dim:
                raise ValueError(f"{name} must have {self.task.observation_dim} numbers, got {len(limits)}")
            object.__setattr__(self, name, limits)
        config, sequence = self.config, (self.config.horizon, self.task.action_dim)
        needed = {
            "observations": (config.observation_steps, config.row_dim(self.task)),
            "noise": sequence,
            "chunk": (config.action_steps, self.task.action_dim),
            "actions": sequence,
            "residual": (),
        }
        found = {tensor.name: tensor.shape for tensor in (*self.inputs, *self.outputs)}
        for name, shape in needed.items():
            if found.get(name) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {found.get(name)}")

    @property
    def observed(self) -> Range:
        """What training saw of observations."""
        return Range(torch.tensor(self.observed_minimum), torch.tensor(self.observed_maximum))

    def to_json(self) -> str:
        sampler = {name: value for name, _, value in sampler_options(self.sampler)}
        return json.dumps(
            {"format": EXPORT_FORMAT, **asdict(self), "task": task_values(self.task), "sampler": sampler}
        )


def describe(function: ChunkFunction, *, precision: str, provenance: Mapping[str, Any]) -> Description:
    """The description of a chunk function.

    Args:
        function: chunk function.
        precision: one of `PRECISIONS`.
        provenance: where it comes from.
    """
    policy = function.policy
    task, sampler = policy.task, policy.resolved_sampler
    seen = policy.normalizer.observation
    if function.start == "cold":
        parallel = replace(sampler.parallel, warm_start="none")
        stop = replace(sampler.stop, warm_iterations=0)
        sampler = replace(sampler, hand_over="replace", parallel=parallel, stop=stop, partial=PartialConfig())
    features = policy.config.row_dim(task) - task.observation_dim
    observed = {
        "numbers": policy.config.row_names(task),
        "units": (
            *(unit for part in task.vectors for unit in part.units),
            *("" for _ in range(features)),
        ),
    }
    commanded = {"numbers": task.action.names, "units": task.action.units}
    known = {
        "observations": observed,
        "previous_actions": commanded,
        "chunk": commanded,
        "actions": commanded,
    }

    def described(shapes: Mapping[str, tuple[int, ...]]) -> tuple[GraphTensor, ...]:
        return tuple(
            GraphTensor(name=name, shape=shape, meaning=MEANINGS[name], **known.get(name, {}))
            for name, shape in shapes.items()
        )

    return Description(
        task=task,
        config=policy.config,
        sampler=sampler,
        start=function.start,
        executed=function.executed,
        delay=function.delay,
        depth=function.depth,
        network_evaluations=function.network_evaluations,
        observed_minimum=tuple(seen.minimum.tolist()),
        observed_maximum=tuple(seen.maximum.tolist()),
        precision=precision,
        inputs=described(function.inputs),
        outputs=described(function.outputs),
        provenance=provenance,
    )


def description_from_json(text: str | None, source: str) -> Description:
    """Read a description.

    Args:
        text: content of the metadata; None if the file has none.
        source: file that it comes from, for the message.

    Raises:
        ExportError: for a file of something else, of another version, or with a damaged description.
    """
    if text is None:
        raise ExportError(f"{source}: no policy of pcm-export (no metadata {METADATA_KEY!r})")
    try:
        values = json.loads(text)
        found = values.pop("format")
        if found != EXPORT_FORMAT:
            raise ExportError(
                f"{source}: has format {str(found)[:80]!r}, need {EXPORT_FORMAT!r}; "
                "export it again with this version"
            )
        values["task"] = task_from_values(values["task"])
        values["config"] = PolicyConfig(**values["config"])
        values["sampler"] = sampler_from_options(values["sampler"])
        for name in ("inputs", "outputs"):
            values[name] = tuple(GraphTensor(**tensor) for tensor in values[name])
        description = Description(**values)
        _ = description.observed  # of finite limits that do not decrease
        return description
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ExportError(f"{source}: bad metadata ({error})") from error
