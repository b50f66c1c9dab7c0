"""The path from observations to one chunk: normalise → sample → unnormalise → cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policy.config import PolicyConfig
from policy.denoiser import BindNetwork, EvaluationCount, make_denoise
from policy.networks.image_encoder import ImageEncoders
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer
from policy.objective import NOISE
from policy.pcm import PCM
from policy.policy_file import PolicyParts, load_policy_parts, save_policy_parts
from policy.prediction import Generators, Prediction, check_tensor, draw_noise
from policy.prepared_sampler import PreparedSampler
from policy.sampling import SamplerConfig
from policy.sampling.deadline import Clock
from policy.sampling.hand_over import OVERLAPPING, make_overlap
from policy.sampling.start import Draw
from policy.sampling.warm_start import continued_actions, continued_noise, guessed_actions
from policy.solvers import Solver
from policy.task import Task


@dataclass(frozen=True)
class DiffusionPolicy:
    """A trained policy: observation history in, chunk out.

    Attributes:
        network: noise predictor, or what its objective says, in evaluation mode.
        task: what is observed and commanded.
        config: steps and widths.
        normalizer: ranges of the training data, on the network's device.
        provenance: origin of the policy: data hash, commit, seed, command.
        sampler: sampler as it was asked for; see `resolved_sampler`.
        covariance: (D, D) covariance of the policy's own flattened action sequences given the observation, normalised
            and averaged over observations, or None; starts and Jacobians use it.
        pcm: PCM trained from this network, for the method ``pcm``; or None.
        clock: clock for deadlines.
        bind_network: evaluation of a network; `policy.runtime` has others.
        objective: what the network was trained for, one of `policy.objective.OBJECTIVES`.
        compute: computation of a whole chunk with this sampler, in place of `predict_unchecked`, or None.
        encoders: what pictures become, in evaluation mode; None for a task without.
    """

    network: ConditionalUnet1D
    task: Task
    config: PolicyConfig
    normalizer: Normalizer
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    covariance: Tensor | None = None
    pcm: PCM | None = None
    clock: Clock = time.perf_counter
    bind_network: BindNetwork = make_denoise
    objective: str = NOISE
    compute: Callable[..., Prediction] | None = None
    encoders: ImageEncoders | None = None

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device | str = "cpu", sampler: SamplerConfig | None = None
    ) -> DiffusionPolicy:
        """Load a checkpoint.

        Raises:
            CheckpointError: for a missing, pickled, truncated, changed, foreign or inconsistent file, or weights
                that are not finite. The message names the file.
        """
        parts = load_policy_parts(path, device)
        return cls(**vars(parts), sampler=sampler or SamplerConfig())

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        parts = PolicyParts(
            self.network,
            self.task,
            self.config,
            self.normalizer,
            provenance=self.provenance,
            covariance=self.covariance,
            objective=self.objective,
            encoders=self.encoders,
        )
        save_policy_parts(path, parts)

    def with_sampler(self, sampler: SamplerConfig) -> DiffusionPolicy:
        """The same policy with another sampler.

        The weights are shared. Everything that does not depend on the observation is prepared.

        Raises:
            ValueError: if the policy cannot be sampled that way.
        """
        policy = replace(self, sampler=sampler, compute=None)
        policy.prepared_sampler.prepare()
        return policy

    def with_pcm(self, pcm: PCM) -> DiffusionPolicy:
        """The same policy with a PCM, which the method ``pcm`` needs."""
        return replace(self, pcm=pcm)

    @cached_property
    def prepared_sampler(self) -> PreparedSampler:
        """What of the sampler does not depend on the observation, computed once."""
        return PreparedSampler(
            network=self.network,
            sampler=self.sampler,
            objective=self.objective,
            covariance=self.covariance,
            given_pcm=self.pcm,
            num_train_timesteps=self.config.num_train_timesteps,
            clock=self.clock,
        )

    @property
    def resolved_sampler(self) -> SamplerConfig:
        """The sampler with nothing left to choose: values of its PCM, or the defaults, are filled in.

        Raises:
            ValueError: if the sampler needs a PCM and there is none, or a PCM with adapters and it has none, or if the
                network was not trained for it.
        """
        return self.prepared_sampler.resolved

    @property
    def solver(self) -> Solver:
        """The sampler's solver, on the network's device.

        Raises:
            ValueError: if the sampler has more steps than the policy has training timesteps.
        """
        return self.prepared_sampler.solver

    @property
    def pcm_mismatch(self) -> str:
        """Warning: how the sampler differs from what its PCM was trained for. Empty if it does not differ."""
        pcm = self.prepared_sampler.pcm
        return "" if pcm is None else pcm.mismatch(self.sampler)

    @torch.no_grad()
    def encode_images(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Features of pictures, which follow the vectors' numbers in an observation row.

        A picture is encoded once, when it arrives: an inference takes features.

        Args:
            pictures: (B, height, width, 3) RGB, uint8, of each picture of the task, by the part's name.

        Returns:
            (B, F) on the network's device, in the order of the task's parts.

        Raises:
            ValueError: for pictures that are missing, or not as the task says, naming the part.
        """
        if self.encoders is None:
            raise ValueError(f"task {self.task.name!r} has no pictures")
        self.encoders.check(pictures)
        device = next(self.encoders.parameters()).device
        features: Tensor = self.encoders({name: given.to(device) for name, given in pictures.items()})
        return features

    @torch.no_grad()
    def encode_image(self, name: str, pictures: Tensor) -> Tensor:
        """Features (B, F) of one part's pictures (B, height, width, 3), which are its own share of `encode_images`.

        Raises:
            KeyError: for a part that is no picture of the task.
        """
        part = {part.name: part for part in self.task.images}[name]
        assert self.encoders is not None
        return self.encoders.encode(part, pictures.to(next(self.encoders.parameters()).device))

    @torch.no_grad()
    def predict(
        self,
        observations: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
        delay: int = 0,
    ) -> Prediction:
        """Predict: the chunk, the whole horizon, and what they cost.

        Args:
            observations: rows (B, observation_steps, D + F), oldest first: the vectors' numbers in their units, then
                the features of each picture, see `encode_images`.
            noise: (B, H, A); by default drawn.
            generator: source of all noise, for repeatable answers. With one for each sample, its answer does not
                depend on the rest of the batch. Their device may differ from the policy's.
            previous: prediction for the same robots from earlier observations, for a sampler with a warm start or a
                hand-over. If its noise is reused, `noise` only fills the end. Ignored once its horizon is over.
            executed: number of control steps from its observations to these, by default `action_steps`.
            delay: number of the chunk's actions that will be over when it arrives. Those of `previous` are executed
                meanwhile; a hand-over counts on it.

        Raises:
            ValueError: for a wrong shape or a value that is not finite, naming the first bad index, if `executed`
                is less than 1, or if `delay` is negative.
            RuntimeError: for a prediction that is not finite.
        """
        called = self.clock()
        config = self.config
        check_tensor(observations, "observations", (config.observation_steps, config.row_dim(self.task)))
        shape = (len(observations), config.horizon, self.task.action_dim)
        reference = self.solver.a
        if noise is None:
            noise = draw_noise(shape, generator, reference)
        check_tensor(noise, "noise", shape[1:])
        if len(noise) != len(observations):
            raise ValueError(f"noise has batch size {len(noise)}, observations have {len(observations)}")
        executed = config.action_steps if executed is None else executed
        if executed < 1:
            raise ValueError(f"executed must be at least 1, got {executed}")
        if delay < 0:
            raise ValueError(f"delay must not be negative, got {delay}")
        before = None
        if previous is not None and self.resolved_sampler.uses_previous and executed < config.horizon:
            if len(previous.actions) != len(observations):
                sizes = f"{len(previous.actions)}, observations have {len(observations)}"
                raise ValueError(f"previous has batch size {sizes}")
            before = previous.actions, previous.noise
        compute = self.predict_unchecked if self.compute is None else self.compute
        prediction = compute(
            observations,
            noise,
            draw=partial(draw_noise, generator=generator, like=reference),
            previous=before,
            executed=executed,
            delay=delay,
            called=called,
        )
        if not prediction.actions.isfinite().all():
            raise RuntimeError(
                "the prediction is not finite: the weights of the policy or its PCM are unusable"
            )
        return prediction

    def predict_unchecked(
        self,
        observations: Tensor,
        noise: Tensor,
        *,
        draw: Draw,
        previous: tuple[Tensor, Tensor] | None = None,
        executed: int,
        delay: int = 0,
        called: float | None = None,
    ) -> Prediction:
        """What `predict` computes between its checks.

        With a sampler of fixed depth it is a pure function of tensors: no value of them is read, and no shape depends
        on one. So it can become a graph, see `policy.runtime.chunk_function`.

        Args:
            observations: (B, observation_steps, D + F).
            noise: (B, H, A).
            draw: source of further noise.
            previous: actions (B, H, A) of the previous chunk and the noise (B, H, A) that they came from, which the
                sampler uses.
            executed: control steps since the previous chunk's observations, fewer than the horizon has.
            delay: see `predict`.
            called: time at which the inference began, on the clock for deadlines; by default now.
        """
        guess, overlap, sampler, config = None, None, self.resolved_sampler, self.config
        first, reference = config.observation_steps - 1, self.solver.a
        noise = noise.to(reference)
        if previous is not None:
            before = self.normalizer.action.normalize(previous[0].to(reference))
            before_noise = previous[1].to(reference)
            if sampler.keeps_noise:
                noise = continued_noise(before_noise, executed, noise)
            if sampler.starts_warm:
                effect = self.prepared_sampler.noise_effect
                guess = guessed_actions(before, before_noise, noise=noise, executed=executed, effect=effect)
            elif sampler.partial.steps:
                guess = continued_actions(before, executed)
            if sampler.hand_over in OVERLAPPING:
                overlap = make_overlap(before, executed=executed, first=first, delay=delay)
        condition = self.normalizer.normalize_rows(observations.to(reference)).flatten(1)
        count = EvaluationCount()
        switch = self.prepared_sampler.switch(
            condition, count, overlap=overlap, bind_network=self.bind_network
        )
        sample = self.prepared_sampler.sample(switch, noise, draw, guess=guess, called=called)
        normalized = sample.actions
        if overlap is not None and sampler.hand_over == "blend":
            normalized = overlap.pull(normalized)
        actions = self.normalizer.action.unnormalize(normalized)
        return Prediction(
            chunk=actions[:, first : first + config.action_steps],
            actions=actions,
            depth=sample.depth,
            network_evaluations=count.evaluations,
            residual=sample.residual,
            noise=noise,
            cut=sample.cut,
        )

    def predict_chunk(
        self,
        observations: Tensor,
        *,
        noise: Tensor | None = None,
        generator: Generators | None = None,
        previous: Prediction | None = None,
        executed: int | None = None,
        delay: int = 0,
    ) -> Tensor:
        """The chunk to execute from the newest observation on. Arguments and errors: see `predict`.

        Returns:
            (B, action_steps, A) commands in the task's units, finite and inside the range of the training data.
        """
        return self.predict(
            observations,
            noise=noise,
            generator=generator,
            previous=previous,
            executed=executed,
            delay=delay,
        ).chunk
