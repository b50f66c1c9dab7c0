"""Write a policy with its sampler as one graph of ONNX or OpenVINO, checked against the policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor

from policy import DiffusionPolicy, Prediction, SamplerConfig
from policy.checkpoint import file_sha256
from policy.exported import FORMATS, ExportedPolicy, ExportError, open_exported, write_exported
from policy.exported.description import PRECISIONS, Description, describe
from policy.exported.graph_files import OPSET, build_graph, describe_graph, save_graph
from policy.pcm import load_pcm
from policy.runtime.chunk_function import START_CHOICES, ChunkFunction
from training.command import run_command
from training.data.demonstrations import load_demonstrations
from training.data.features import with_features
from training.data.windows import policy_windows
from training.evaluation.rollout import run_episodes
from training.evaluation.summary import summarize
from training.export.quantize import quantized
from training.provenance import code_version, command_line

LARGEST_DIFFERENCE = 1e-4
"""Of a normalised action or a residual of a float32 file from the policy's own."""


@dataclass(frozen=True)
class ExportConfig:
    """See `training/conf/export.yaml`."""

    checkpoint: str = MISSING
    output: str = MISSING
    format: str = "onnx"
    pcm: str | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    start: str = "cold"
    executed: int | None = None
    delay: int = 0
    precision: str = "float32"
    opset: int = OPSET
    demonstrations: str | None = None
    task: str | None = None
    observations: int = 64
    calibration: int = 64
    episodes: int = 0
    first_seed: int = 100000
    max_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("format", FORMATS), ("start", START_CHOICES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name, least, most in (
            ("observations", 1, 10_000),
            ("calibration", 1, 100_000),
            ("episodes", 0, 10_000),
            ("max_steps", 1, 100_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in {least} … {most}, got {getattr(self, name)}")
        if self.sampler.uses_pcm and self.pcm is None:
            raise ValueError("sampler.method=pcm needs pcm=….safetensors")
        if self.precision == "int8" and self.demonstrations is None:
            raise ValueError("precision=int8 needs demonstrations=… to be calibrated on")
        if self.episodes and self.start == "warm":
            raise ValueError("episodes=… needs start=cold: an episode begins without a previous chunk")


def export_policy(config: ExportConfig) -> Description:
    """Write the file, check it, and measure what its precision costs.

    Returns:
        The description in the file.

    Raises:
        ExportError: for a file that differs from the policy. It is removed.
    """
    policy = DiffusionPolicy.load(config.checkpoint, "cpu", config.sampler)
    if config.pcm is not None:
        policy = policy.with_pcm(load_pcm(config.pcm, policy.network))
    if policy.pcm_mismatch:
        print(f"warning: {policy.pcm_mismatch}", file=sys.stderr)
    function = ChunkFunction(
        policy,
        start=config.start,
        executed=config.executed,
        delay=config.delay,
        network_dtype=torch.float16 if config.precision == "float16" else None,
    )
    provenance = {
        "checkpoint_sha256": file_sha256(config.checkpoint),
        "pcm_sha256": None if config.pcm is None else file_sha256(config.pcm),
        "policy": dict(policy.provenance),
        "code": code_version(),
        "command": command_line(),
    }
    description = describe(function, precision=config.precision, provenance=provenance)
    generator = torch.Generator().manual_seed(config.seed)
    observations = _observations(config, function.policy, generator)
    graph = build_graph(function, config.format, opset=config.opset)
    if config.precision == "int8":
        calls = calls_of(function, observations[: config.calibration], generator)
        graph = quantized(graph, calls)
    describe_graph(graph, description)
    output = Path(config.output)
    with write_exported(output, graph) as temporary:
        exported = open_exported(temporary)
        checked = _check(function, exported, observations[: config.observations], generator=generator)
        if config.precision == "float32" and not checked["largest_difference"] <= LARGEST_DIFFERENCE:
            raise ExportError(
                f"{output}: differs from the policy by {checked['largest_difference']:.2g}, at most "
                f"{LARGEST_DIFFERENCE:g} is allowed; not written"
            )
        if config.episodes:
            checked |= _rewards(config, function.policy, exported)
        description = replace(description, checked=checked)
        describe_graph(graph, description)
        save_graph(graph, temporary)
    return description


def _observations(config: ExportConfig, policy: DiffusionPolicy, generator: torch.Generator) -> Tensor:
    """(N, observation_steps, observation_dim), drawn from the demonstrations or from the range that training saw."""
    count = max(config.observations, config.calibration)
    if config.demonstrations is None:
        if policy.task.images:
            raise ValueError("demonstrations=… is needed: pictures of a task cannot be drawn from ranges")
        limits = policy.normalizer.observation
        shape = (count, policy.config.observation_steps, policy.task.observation_dim)
        return limits.minimum + torch.rand(shape, generator=generator) * (limits.maximum - limits.minimum)
    demonstrations = load_demonstrations(config.demonstrations, task=config.task, policy_task=policy.task)
    seen = with_features(demonstrations, policy)
    windows = policy_windows(seen, range(len(seen.episode_ends)), policy.config)
    rows = torch.randperm(len(windows.observations), generator=generator)[:count]
    return windows.observations[rows].float()


def calls_of(
    function: ChunkFunction, observations: Tensor, generator: torch.Generator
) -> list[dict[str, Tensor]]:
    """The inputs of a graph for observations, each with a batch size of 1, by name."""
    calls = []
    for observation in observations:
        call = {
            name: torch.randn((1, *shape), generator=generator) for name, shape in function.inputs.items()
        }
        call["observations"] = observation[None]
        if function.start == "warm":
            before = function.policy.predict(observation[None], generator=generator)
            call |= {"previous_actions": before.actions, "previous_noise": before.noise}
        calls.append(call)
    return calls


def _check(
    function: ChunkFunction, exported: ExportedPolicy, observations: Tensor, *, generator: torch.Generator
) -> dict[str, Any]:
    """How far normalised actions and residuals of a file are from the policy's, in one batch and one by one."""
    policy = function.policy
    warm = function.start == "warm"
    previous = policy.predict(observations, generator=generator) if warm else None
    cold = policy if warm else policy.with_sampler(exported.sampler)
    seed = int(torch.randint(2**31, (), generator=generator))

    def predict(server: DiffusionPolicy | ExportedPolicy) -> Prediction:
        drawn = [torch.Generator().manual_seed(seed + index) for index in range(len(observations))]
        return server.predict(
            observations,
            generator=drawn,
            previous=previous,
            executed=function.executed,
            delay=function.delay,
        )

    expected, found = predict(cold), predict(exported)
    normalize = policy.normalizer.action.normalize
    errors = (normalize(found.actions) - normalize(expected.actions)).abs().amax((1, 2))
    residuals = (found.residual - expected.residual).abs()
    return {
        "observations": len(observations),
        "largest_difference": float(torch.maximum(errors, residuals).max()),
        "error_p95": float(errors.quantile(0.95)),
    }


def _rewards(config: ExportConfig, policy: DiffusionPolicy, exported: ExportedPolicy) -> dict[str, Any]:
    """Rewards of the policy and of its file in the same episodes, with the same noises."""
    seeds = range(config.first_seed, config.first_seed + config.episodes)
    cold = policy.with_sampler(exported.sampler)
    rewards = {
        name: summarize(run_episodes(server, seeds, config.max_steps, noise_seed=config.seed))[
            "mean_max_reward"
        ]
        for name, server in (("policy_reward", cold), ("reward", exported))
    }
    return {"episodes": config.episodes, "max_steps": config.max_steps, **rewards}


def _run(config: ExportConfig) -> None:
    description = export_policy(config)
    checked = description.checked
    print(
        f"largest difference from the policy: {checked['largest_difference']:.2g} (normalised actions, residual)"
    )
    print(f"error, 95th percentile: {checked['error_p95']:.2g}")
    if config.episodes:
        rewards = f"{checked['reward']:.3f}, of the policy {checked['policy_reward']:.3f}"
        print(f"mean maximum reward: {rewards}, over {config.episodes} episodes")
    print(f"{config.format}, {config.precision}: {config.output}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("export", ExportConfig, _run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
