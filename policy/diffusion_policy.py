"""The way of one action chunk: observation → normaliser → sampler → unnormalise → chunk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from policy.checkpoint import Checkpoint, CheckpointError, load_checkpoint, load_weights, save_checkpoint
from policy.config import PolicyConfig
from policy.denoiser import BindNetwork, Denoise, EvaluationCount, make_denoise
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer, Range
from policy.pcm import PCM
from policy.sampling import SamplerConfig
from policy.sampling.deadline import Clock
from policy.sampling.sampler import Sampler, make_sampler, make_solver
from policy.sampling.switching import Switch, feature_space, parameter_space, switching_weights
from policy.sampling.warm_start import continued_noise, guessed_actions, noise_effect
from policy.solvers.schedule import squared_cosine_alphas_cumprod
from policy.solvers.solver import Solver

Generators: TypeAlias = torch.Generator | Sequence[torch.Generator]

COVARIANCE = "action_covariance"  # the one tensor of a checkpoint that is no weight
MERGED_COPIES = (
    8  # of the network, that a PCM may take memory for; the adapters are evaluated at weights beyond them
)
CHECKPOINT_FORMAT = "pcm_policy.diffusion_policy/1"


@dataclass(frozen=True)
class Prediction:
    """What a policy answers.

    Attributes:
        chunk: (B, action_steps, A) target positions in px, to execute from the newest observation on; finite and
            inside the range of the training data.
        actions: (B, H, A) in px, the whole horizon, which begins at the oldest observation.
        depth: network evaluations that it took, one after the other.
        network_evaluations: samples × timesteps that went through networks, over the whole batch.
        residual: (B,) how far the sampler's last iteration moved the normalised actions, root mean square; 0 for a
            sequential sampler.
        noise: (B, H, A) that the actions came from.
        cut: whether the sampler was stopped by its deadline.
    """

    chunk: Tensor
    actions: Tensor
    depth: int
    network_evaluations: int
    residual: Tensor
    noise: Tensor
    cut: bool = False


@dataclass(frozen=True)
class DiffusionPolicy:
    """A trained policy: observation history in, action chunk out.

    Attributes:
        network: the noise predictor, in evaluation mode.
        config: shapes and widths.
        normalizer: the training data's ranges, on the network's device.
        provenance: how it came to be: data hash, commit, seed, command.
        sampler: how noise becomes actions.
        covariance: (D, D) of the policy's own flattened action sequences given the observation, normalised and
            averaged over observations, or None; some parallel samplers start from it.
        pcm: trained from this network, for the samplers that use one.
        clock: that the sampler's deadlines are judged by.
        bind_network: how a network is evaluated; `policy.runtime` has other ways.
    """

    network: ConditionalUnet1D
    config: PolicyConfig
    normalizer: Normalizer
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    covariance: Tensor | None = None
    pcm: PCM | None = None
    clock: Clock = time.perf_counter
    bind_network: BindNetwork = make_denoise

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | str = "cpu", sampler: SamplerConfig | None = None
    ) -> DiffusionPolicy:
        """Load a checkpoint.

        Raises:
            CheckpointError: for a missing, pickled, truncated, foreign or inconsistent file, or weights that
                are not finite. The message names the file.
        """
        checkpoint = load_checkpoint(path, CHECKPOINT_FORMAT, device)
        try:
            config = PolicyConfig(**checkpoint.header["config"])
            ranges = {
                name: Range(
                    torch.tensor(limits["minimum"], device=device),
                    torch.tensor(limits["maximum"], device=device),
                )
                for name, limits in checkpoint.header["normalizer"].items()
            }
            normalizer = Normalizer(**ranges)
            for name, size in (("observation", config.observation_dim), ("action", config.action_dim)):
                if ranges[name].minimum.shape != (size,):
                    found = tuple(ranges[name].minimum.shape)
                    raise ValueError(f"the {name}'s range has shape {found}, need {(size,)}")
            network = config.build_network().to(device)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: bad header ({error})") from error
        covariance = checkpoint.tensors.pop(COVARIANCE, None)
        size = config.horizon * config.action_dim
        if covariance is not None and covariance.shape != (size, size):
            found = tuple(covariance.shape)
            raise CheckpointError(f"{path}: {COVARIANCE} has shape {found}, need {(size, size)}")
        load_weights(network, checkpoint.tensors, path)
        provenance = checkpoint.header.get("provenance", {})
        return cls(network.eval(), config, normalizer, provenance, sampler or SamplerConfig(), covariance)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        header = {
            "config": asdict(self.config),
            "normalizer": {
                name: {"minimum": limits.minimum.tolist(), "maximum": limits.maximum.tolist()}
                for name, limits in (
                    ("observation", self.normalizer.observation),
                    ("action", self.normalizer.action),
                )
            },
            "provenance": dict(self.provenance),
        }
        tensors = dict(self.network.state_dict())
        if self.covariance is not None:
            tensors[COVARIANCE] = self.covariance
        save_checkpoint(path, Checkpoint(tensors, header), CHECKPOINT_FORMAT)

    def with_sampler(self, sampler: SamplerConfig) -> DiffusionPolicy:
        """The same policy, sampled in another way. The weights are shared.

        Raises:
            ValueError: if the policy cannot be sampled that way.
        """
        policy = replace(self, sampler=sampler)
        _ = policy.sample, policy._merged, policy._noise_effect
        return policy

    def with_pcm(self, pcm: PCM) -> DiffusionPolicy:
        """The same policy with a PCM, which the samplers `pcm` and `pcm_lora` need."""
        return replace(self, pcm=pcm)

    @property
    def pcm_mismatch(self) -> str:
        """How the sampler differs from what its PCM was trained for, to warn of; empty if it does not."""
        return self.pcm.mismatch(self.sampler) if self.pcm is not None and self.sampler.uses_pcm else ""

    @cached_property
    def solver(self) -> Solver:
        """The sampler's solver, on the network's device.

        Raises:
            ValueError: if the sampler has more steps than the policy has training timesteps.
        """
        parameter = next(self.network.parameters())
        alphas_cumprod = squared_cosine_alphas_cumprod(self.config.num_train_timesteps)
        return make_solver(self.sampler, alphas_cumprod).to(parameter.device, parameter.dtype)

    @cached_property
    def sample(self) -> Sampler:
        """The configured sampler: what it can prepare is prepared once.

        Raises:
            ValueError: if the policy cannot be sampled that way.
        """
        if not self.sampler.uses_pcm:
            return make_sampler(self.sampler, self.solver, self.covariance, clock=self.clock)
        if self.pcm is None:
            raise ValueError(f"sampler {self.sampler.name!r} needs a PCM, and the policy has none")
        if self.sampler.name == "pcm_lora" and self.pcm.method != "lora":
            raise ValueError(f"sampler 'pcm_lora' needs a PCM of method 'lora', got {self.pcm.method!r}")
        return make_sampler(
            self.sampler,
            self.solver,
            self.covariance,
            self.pcm.iterations,
            self.pcm.initial_weight,
            self.clock,
        )

    @cached_property
    def _noise_effect(self) -> Tensor | None:
        """What noise does to a warm start's guess, if that can be said."""
        return None if self.covariance is None else noise_effect(self.covariance).to(self.solver.a)

    @cached_property
    def _merged(self) -> Mapping[float, ConditionalUnet1D]:
        """The PCM as plain networks, at weights λ that the sampler gives it."""
        if self.pcm is None or not self.sampler.uses_pcm:
            return {}
        weights = [1.0]
        if self.sampler.name == "pcm_lora":
            changing, last = switching_weights(
                self.sampler.stiffness, self.pcm.iterations, self.sampler.iterations
            )
            weights = [weight for weight in (self.pcm.initial_weight, *changing, last) if weight > 0]
        return {weight: self.pcm.merged(weight) for weight in [*dict.fromkeys(weights)][:MERGED_COPIES]}

    def _switch(self, condition: Tensor, count: EvaluationCount) -> Switch:
        """The data predictions for these observations (B, C), normalised, and counted."""

        def bind(network: ConditionalUnet1D) -> Denoise:
            return count.counting(self.bind_network(network, self.solver, condition))

        base = bind(self.network)
        if self.pcm is None or not self.sampler.uses_pcm:
            return lambda weight: base
        merged = {weight: bind(network) for weight, network in self._merged.items()}
        if self.sampler.name == "pcm":
            return feature_space(base, merged[1.0])
        return parameter_space(base, merged, bind(self.pcm.network), self.pcm.network)

    @torch.no_grad()
    def predict(
        self,
        observations: Tensor,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
    ) -> Prediction:
        """All that is predicted, and what it took.

        Args:
            observations: (B, observation_steps, observation_dim), oldest first, in px.
            noise: (B, H, A) initial noise; drawn where it is not given.
            generator: source of all noise, for repeatable answers, or one per sample, so that a sample's answer
                does not depend on the rest of its batch; their device may differ from the policy's.
            previous: the prediction for the same robots from earlier observations, which a sampler with a warm start
                begins with; if that includes the noise, only the end of `noise` is used. None of it is used once its
                horizon is over.
            executed: control steps from its observations to these, by default `action_steps`.

        Raises:
            ValueError: for a wrong shape or a value that is not finite, naming the first bad index, or if `executed`
                is less than 1.
        """
        called = self.clock()
        config = self.config
        self._check(observations, "observations", (config.observation_steps, config.observation_dim))
        shape = (len(observations), config.horizon, config.action_dim)
        reference = self.solver.a
        if noise is None:
            noise = _randn(shape, generator, reference)
        self._check(noise, "noise", shape[1:])
        if len(noise) != len(observations):
            raise ValueError(f"noise has batch size {len(noise)}, observations have {len(observations)}")
        condition = self.normalizer.observation.normalize(observations.to(reference)).flatten(1)
        count = EvaluationCount()
        switch = self._switch(condition, count)
        noise = noise.to(reference)
        guess = None
        executed = config.action_steps if executed is None else executed
        if executed < 1:
            raise ValueError(f"executed must be at least 1, got {executed}")
        if previous is not None and self.sampler.warm_start != "none" and executed < config.horizon:
            if len(previous.actions) != len(observations):
                sizes = f"{len(previous.actions)}, observations have {len(observations)}"
                raise ValueError(f"previous has batch size {sizes}")
            previous_actions = self.normalizer.action.normalize(previous.actions.to(reference))
            previous_noise = previous.noise.to(reference)
            if self.sampler.warm_start == "actions_and_noise":
                noise = continued_noise(previous_noise, executed, noise)
            guess = guessed_actions(previous_actions, previous_noise, noise, executed, self._noise_effect)
        sample = self.sample(switch, noise, lambda shape: _randn(shape, generator, reference), guess, called)
        actions = self.normalizer.action.unnormalize(sample.actions)
        first = config.observation_steps - 1
        chunk = actions[:, first : first + config.action_steps]
        return Prediction(chunk, actions, sample.depth, count.evaluations, sample.residual, noise, sample.cut)

    def predict_chunk(
        self,
        observations: Tensor,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
    ) -> Tensor:
        """The action chunk to execute from the newest observation on; arguments and errors as of `predict`.

        Returns:
            (B, action_steps, A) target positions in px, finite and inside the range of the training data.
        """
        return self.predict(observations, noise, generator, previous, executed).chunk

    @staticmethod
    def _check(tensor: Tensor, name: str, shape: tuple[int, ...]) -> None:
        if tensor.ndim != 1 + len(shape) or tensor.shape[1:] != shape:
            need = ", ".join(str(size) for size in shape)
            raise ValueError(f"{name} must have shape (B, {need}), got {tuple(tensor.shape)}")
        if not tensor.isfinite().all():
            index = tuple(int(i) for i in (~tensor.isfinite()).nonzero()[0])
            raise ValueError(f"{name}{list(index)} is {tensor[index].item()}, must be finite")


def _randn(shape: tuple[int, ...], generator: Generators | None, like: Tensor) -> Tensor:
    if isinstance(generator, Sequence):
        if len(generator) != shape[0]:
            raise ValueError(f"got {len(generator)} generators for {shape[0]} observations")
        return torch.cat([_randn((1, *shape[1:]), one, like) for one in generator])
    # Drawn where the generator lives, so that one seed means the same noise on every device.
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(like)
