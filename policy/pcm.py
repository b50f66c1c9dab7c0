"""Picard Consistency Model (PCM, So et al. 2025): a policy's network, trained so that Picard iteration ends sooner."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, load_weights, save_checkpoint
from policy.networks.lora import add_lora, load_lora_state, lora_state, merge_lora
from policy.networks.unet import ConditionalUnet1D
from policy.sampling.config import SamplerConfig

PCM_FORMAT = "pcm_policy.pcm/1"
METHODS = ("lora", "full")
INITIAL_MODELS = ("base", "pcm")


@dataclass(frozen=True)
class PCM:
    """A trained network, what it was trained from and what it was trained for.

    Attributes:
        network: of the base policy's architecture, in evaluation mode; with adapters if the method is ``lora``.
        method: ``lora`` or ``full``, whether adapters or all weights were trained.
        base_sha256: `weights_sha256` of the network that the training started from.
        steps: T, solver steps of the trajectories that it was trained on.
        formulation: of the Picard iteration, as in `SamplerConfig`.
        initialisation: of the trajectories, as in `SamplerConfig`.
        iterations: K, Picard iterations that it was trained for.
        initial_model: ``base`` or ``pcm``, which makes the network call of a ``gaussian`` initial trajectory.
        rank, targets: of the adapters, see `add_lora`; 0 and empty for ``full``.
        provenance: how it came to be: data, commit, seed, command.
        solver: whose sequential answer it was trained for, as in `SamplerConfig`; files from before there was a choice
            do not say.

    Raises:
        ValueError: for a method, an initial model or numbers that do not exist.
    """

    network: ConditionalUnet1D
    method: str
    base_sha256: str
    steps: int
    formulation: str
    initialisation: str
    iterations: int
    initial_model: str = "base"
    rank: int = 0
    targets: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    solver: str = "ddim"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method!r}")
        if self.initial_model not in INITIAL_MODELS:
            raise ValueError(
                f"initial_model must be one of {', '.join(INITIAL_MODELS)}, got {self.initial_model!r}"
            )
        if self.steps < 1 or self.iterations < 1:
            raise ValueError(f"steps and iterations must be at least 1, got {self.steps}, {self.iterations}")

    @property
    def initial_weight(self) -> float:
        """Of this model in the network call of a ``gaussian`` initial trajectory."""
        return 1.0 if self.initial_model == "pcm" else 0.0

    @property
    def picard(self) -> SamplerConfig:
        """The Picard iteration that it was trained for, without it."""
        return SamplerConfig(
            "picard",
            self.steps,
            solver=self.solver,
            formulation=self.formulation,
            initialisation=self.initialisation,
        )

    def mismatch(self, sampler: SamplerConfig) -> str:
        """How the sampler differs from what it was trained for, empty if it does not.

        Iterated long enough, that sampler gives the base's answer all the same, but perhaps no sooner than without it.
        """
        return ", ".join(
            f"sampler.{name} is {getattr(sampler, name)}, the PCM was trained for {getattr(self, name)}"
            for name in ("solver", "steps", "formulation", "initialisation")
            if getattr(sampler, name) != getattr(self, name)
        )

    @cached_property
    def _merged(self) -> WeakValueDictionary[float, ConditionalUnet1D]:
        return WeakValueDictionary()

    def merged(self, weight: float) -> ConditionalUnet1D:
        """The network with its adapters, scaled by λ, inside its weights; one copy for all that use it at a time."""
        network = self._merged.get(weight)
        if network is None:
            network = self._merged[weight] = merge_lora(self.network, weight)
        return network


def save_pcm(path: str | Path, pcm: PCM) -> None:
    """Write one safetensors file, atomically: the adapters, or all weights."""
    tensors = lora_state(pcm.network) if pcm.method == "lora" else pcm.network.state_dict()
    header = {option.name: getattr(pcm, option.name) for option in fields(pcm) if option.name != "network"}
    header["provenance"] = dict(pcm.provenance)
    save_checkpoint(path, Checkpoint(tensors, header), PCM_FORMAT)


def load_pcm(path: str | Path, base: ConditionalUnet1D) -> PCM:
    """Load a PCM onto the device of the network that it was trained from, which stays as it is.

    Raises:
        CheckpointError: for a missing, pickled, truncated, foreign or inconsistent file, weights that are not
            finite, or another base network. The message names the file.
    """
    reference = next(base.parameters())
    checkpoint = load_checkpoint(path, PCM_FORMAT, reference.device)
    network = copy.deepcopy(base)
    try:
        pcm = PCM(network, **checkpoint.header)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: bad header ({error})") from error
    found = weights_sha256(base.state_dict())
    if pcm.base_sha256 != found:
        raise CheckpointError(
            f"{path}: trained from another base, whose weights have sha256 {str(pcm.base_sha256)[:12]}…; "
            f"those of this policy have {found[:12]}…"
        )
    if pcm.method == "lora":
        try:
            add_lora(network, pcm.rank, pcm.targets, torch.Generator())
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: bad header ({error})") from error
        load_lora_state(network, checkpoint.tensors, path)
    else:
        load_weights(network, checkpoint.tensors, path)
    return pcm


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values: the same weights have it in every file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
