"""Picard Consistency Model (PCM, So et al. 2025): a policy's network, trained so that Picard iteration ends sooner."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from policy.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    tensors_sha256,
)
from policy.networks.lora import add_lora, load_lora_state, lora_state, merge_lora
from policy.networks.unet import ConditionalUnet1D
from policy.sampling.config import SamplerConfig, SamplerDefaults
from policy.sampling.method_options import PicardConfig
from policy.sampling.warm_start import WARM_STARTS

PCM_FORMAT = "pcm_policy.pcm/2"
TRAINED_WEIGHTS = ("lora", "full")
MOST_STEPS = 1000  # of a `SamplerConfig`
START_MODELS = ("base", "pcm")


@dataclass(frozen=True)
class PCM:
    """A trained network, its base, and the sampling that it was trained for.

    Attributes:
        network: network of the base's architecture, in evaluation mode; with adapters if the weights are ``lora``.
        weights: trained weights: ``lora`` (adapters) or ``full`` (all).
        base_sha256: `weights_sha256` of the network that the training started from.
        solver, steps: solver of the Picard iteration and its number of steps T, as in `SamplerConfig`.
        jacobian, start: Jacobian and start of the Picard iteration, as in `PicardConfig`.
        iterations: number K of Picard iterations from a cold start that it was trained for; 0: from none.
        warm_start: kind of warm start that it was trained for as well, as in `ParallelConfig`; ``none``: no kind.
        warm_iterations: its K from a warm start.
        start_model: network that makes the call of the start ``gaussian``: ``base`` or ``pcm``.
        rank, targets: rank and layers of the adapters, see `add_lora`; 0 and empty for ``full``.
        provenance: origin of the PCM: data, commit, seed, command.

    Raises:
        ValueError: for trained weights, a start model or numbers that do not exist.
    """

    network: ConditionalUnet1D
    _: KW_ONLY
    weights: str
    base_sha256: str
    solver: str
    steps: int
    jacobian: str
    start: str
    iterations: int
    start_model: str = "base"
    warm_start: str = "none"
    warm_iterations: int = 0
    rank: int = 0
    targets: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.weights not in TRAINED_WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(TRAINED_WEIGHTS)}, got {self.weights!r}")
        if self.start_model not in START_MODELS:
            raise ValueError(
                f"start_model must be one of {', '.join(START_MODELS)}, got {self.start_model!r}"
            )
        if self.warm_start not in WARM_STARTS:
            raise ValueError(f"warm_start must be one of {', '.join(WARM_STARTS)}, got {self.warm_start!r}")
        for name in ("steps", "iterations", "warm_iterations", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        for name in ("base_sha256", "targets"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a text, got {getattr(self, name)!r}")
        if not isinstance(self.provenance, Mapping):
            raise ValueError(f"provenance must be an object of keys and values, got {self.provenance!r}")
        counts = self.steps, self.iterations, self.warm_iterations
        if max(counts) > MOST_STEPS:
            raise ValueError(
                f"steps, iterations and warm_iterations must be at most {MOST_STEPS}, got {counts}"
            )
        if self.steps < 1 or min(counts) < 0 or self.iterations + self.warm_iterations < 1:
            raise ValueError(f"steps and iterations must be at least 1, got {self.steps}, {self.iterations}")
        if (self.warm_start == "none") != (self.warm_iterations == 0):
            raise ValueError(
                f"warm_iterations belong to a warm start, got {self.warm_iterations} and {self.warm_start}"
            )

    @property
    def start_weight(self) -> float:
        """Weight λ of the PCM in the network call of the start ``gaussian``."""
        return 1.0 if self.start_model == "pcm" else 0.0

    @property
    def defaults(self) -> SamplerDefaults:
        """Values of a sampler's ``auto`` with this PCM: those that it was trained for."""
        space = "parameter" if self.weights == "lora" else "feature"
        return SamplerDefaults(
            self.solver, self.steps, self.jacobian, self.start, space, warm_start=self.warm_start
        )

    @property
    def picard(self) -> SamplerConfig:
        """The sampler that it was trained for, from cold starts and with the base in its place."""
        return SamplerConfig(
            "picard", self.solver, self.steps, picard=PicardConfig(self.jacobian, self.start)
        )

    def mismatch(self, sampler: SamplerConfig) -> str:
        """Warning: how the sampler differs from what the PCM was trained for. Empty if it does not differ.

        Such a sampler still ends at the base's answer, but perhaps no sooner than without the PCM.
        """
        said = sampler.resolved(self.defaults)
        compared = (
            ("solver", said.solver, self.solver),
            ("spacing", said.spacing, "auto"),
            ("steps", said.steps, self.steps),
            ("picard.jacobian", said.picard.jacobian, self.jacobian),
            ("picard.start", said.picard.start, self.start),
        )
        differences = [
            f"sampler.{name} is {value}, the PCM was trained for {trained}"
            for name, value, trained in compared
            if value != trained
        ]
        return ", ".join([*differences, *self._warm_mismatch(said)])

    def _warm_mismatch(self, sampler: SamplerConfig) -> Iterator[str]:
        """How the sampler's warm start differs, and what comes of it."""
        if not sampler.starts_warm:
            if self.warm_iterations:
                use = f"uses its K = {self.iterations} for them" if self.iterations else "leaves the PCM out"
                yield (
                    f"the PCM was trained for sampler.parallel.warm_start {self.warm_start}, but every chunk "
                    f"starts cold, which {use}"
                )
        elif not self.warm_iterations:
            yield "the PCM was trained from cold starts alone: after a warm start the base makes all iterations"
        elif sampler.keeps_noise and self.warm_start == "actions":
            yield "the sampler carries the noise along, the PCM was trained with fresh noise"
        elif not sampler.keeps_noise and self.warm_start == "actions_and_noise":
            yield "the sampler draws fresh noise, the PCM was trained with noise that is carried along"

    @cached_property
    def _merged(self) -> WeakValueDictionary[float, ConditionalUnet1D]:
        return WeakValueDictionary()

    def merged(self, weight: float) -> ConditionalUnet1D:
        """The network with its adapters, scaled by λ, merged into its weights. All current users share one copy."""
        network = self._merged.get(weight)
        if network is None:
            network = self._merged[weight] = merge_lora(self.network, weight)
        return network


def save_pcm(path: str | Path, pcm: PCM) -> None:
    """Write one safetensors file, atomically: the adapters, or all weights."""
    tensors = lora_state(pcm.network) if pcm.weights == "lora" else pcm.network.state_dict()
    header = {option.name: getattr(pcm, option.name) for option in fields(pcm) if option.name != "network"}
    header["provenance"] = dict(pcm.provenance)
    save_checkpoint(path, Checkpoint(tensors, header), PCM_FORMAT)


def load_pcm(path: str | Path, base: ConditionalUnet1D) -> PCM:
    """Load a PCM onto the device of its base.

    Args:
        base: network that it was trained from; stays as it is.

    Raises:
        CheckpointError: for a missing, pickled, truncated, changed, foreign or inconsistent file, weights that are
            not finite, or another base network. The message names the file.
    """
    reference = next(base.parameters())

    def check(header: dict[str, Any], described: dict[str, Tensor]) -> None:
        pcm = _read_header(path, copy.deepcopy(base).to("meta"), header)
        # First: what else differs in a PCM of another policy, or of another task, follows from that.
        if pcm.base_sha256 != (found := weights_sha256(base)):
            raise CheckpointError(
                f"{path}: trained from another base, whose weights have sha256 {str(pcm.base_sha256)[:12]}…; "
                f"those of this policy have {found[:12]}…"
            )
        expected = _with_adapters(path, pcm)
        check_weights(expected, described, path)

    checkpoint = load_checkpoint(path, PCM_FORMAT, reference.device, check=check)
    network = copy.deepcopy(base)
    pcm = _read_header(path, network, checkpoint.header)
    _with_adapters(path, pcm)
    if pcm.weights == "lora":
        load_lora_state(network, checkpoint.tensors, path)
    else:
        load_weights(network, checkpoint.tensors, path)
    return pcm


def _read_header(path: str | Path, network: ConditionalUnet1D, header: dict[str, Any]) -> PCM:
    try:
        pcm = PCM(network, **header)
        _ = pcm.picard  # checks the options
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    return pcm


def _with_adapters(path: str | Path, pcm: PCM) -> dict[str, Tensor]:
    """Put the PCM's adapters on its network, if it has some; returns the weights that its file must hold."""
    if pcm.weights != "lora":
        return pcm.network.state_dict()
    try:
        add_lora(pcm.network, rank=pcm.rank, targets=pcm.targets, generator=torch.Generator())
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    return lora_state(pcm.network)


def weights_sha256(network: nn.Module) -> str:
    """Hash of a network's weights: equal weights have equal hashes, whatever file they are in."""
    return tensors_sha256(network.state_dict())
