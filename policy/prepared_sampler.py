"""A sampler prepared for a policy: everything that does not depend on the observation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from policy.denoiser import BindNetwork, Denoise, EvaluationCount
from policy.networks.unet import ConditionalUnet1D
from policy.objective import OBJECTIVES, check_sampler
from policy.pcm import PCM
from policy.pcm_networks import bind_switch, merged_networks
from policy.sampling import SamplerConfig
from policy.sampling.deadline import Clock
from policy.sampling.hand_over import Overlap
from policy.sampling.methods import make_sampler
from policy.sampling.sampler import Ingredients, Sampler
from policy.sampling.switching import Switch, SwitchingSchedule, switching_schedule
from policy.sampling.warm_start import noise_effect
from policy.solvers import SPACINGS, Solver, build_solver
from policy.solvers.noise_schedule import squared_cosine_alphas_cumprod


@dataclass(frozen=True, kw_only=True)
class PreparedSampler:
    """A sampler of a network.

    Attributes:
        network: see `DiffusionPolicy`; so are objective, covariance and clock.
        sampler: sampler as it was asked for.
        given_pcm: PCM of the network, which the sampler may use; or None.
        num_train_timesteps: number of timesteps of the diffusion process.
    """

    network: ConditionalUnet1D
    sampler: SamplerConfig
    objective: str
    covariance: Tensor | None
    given_pcm: PCM | None
    num_train_timesteps: int
    clock: Clock

    def prepare(self) -> None:
        """Compute everything now.

        Raises:
            ValueError: if the network cannot be sampled that way.
        """
        _ = self.sample, self.merged, self.noise_effect

    @property
    def pcm(self) -> PCM | None:
        """The PCM, if the sampler uses it."""
        if not self.sampler.uses_pcm:
            return None
        if self.given_pcm is None:
            raise ValueError("sampler.method=pcm needs a PCM, and the policy has none")
        return self.given_pcm

    @cached_property
    def resolved(self) -> SamplerConfig:
        """See `DiffusionPolicy.resolved_sampler`."""
        pcm = self.pcm
        sampler = self.sampler.resolved(OBJECTIVES[self.objective] if pcm is None else pcm.defaults)
        check_sampler(self.objective, sampler)
        if pcm is not None and sampler.pcm.space == "parameter" and pcm.weights != "lora":
            raise ValueError(
                f"sampler.pcm.space=parameter needs a PCM with adapters, got {pcm.weights} weights"
            )
        return sampler

    @cached_property
    def solver(self) -> Solver:
        """See `DiffusionPolicy.solver`."""
        return self._build_solver()

    def _build_solver(self, last: int = 0) -> Solver:
        parameter = next(self.network.parameters())
        alphas_cumprod = squared_cosine_alphas_cumprod(self.num_train_timesteps)
        sampler = self.resolved
        if not 1 <= sampler.steps <= len(alphas_cumprod):
            allowed = f"1 … {len(alphas_cumprod)} (training timesteps)"
            raise ValueError(f"sampler.steps must be in {allowed}, got {sampler.steps}")
        spacing = SPACINGS.get(sampler.spacing)  # auto is none of them
        solver = build_solver(sampler.solver, alphas_cumprod, sampler.steps, spacing=spacing, last=last)
        return solver.to(parameter.device, parameter.dtype)

    @cached_property
    def sample(self) -> Sampler:
        """The resolved sampler as a function."""
        last = self.sampler.partial.steps
        tail = self._build_solver(last) if last else None
        ingredients = Ingredients(self.solver, self.covariance, self.switching, self.clock, tail)
        return make_sampler(self.resolved, ingredients)

    @cached_property
    def switching(self) -> SwitchingSchedule:
        """When the PCM gives way to the base network."""
        pcm, sampler = self.pcm, self.resolved
        if pcm is None:
            return SwitchingSchedule()
        return switching_schedule(
            sampler.pcm.stiffness,
            pcm.iterations,
            warm_trained_iterations=pcm.warm_iterations,
            iterations=sampler.stop.iterations,
            warm_iterations=sampler.stop.warm_iterations,
            start=pcm.start_weight,
        )

    @cached_property
    def noise_effect(self) -> Tensor | None:
        """Effect of noise on a warm start's guess; None without a covariance."""
        return None if self.covariance is None else noise_effect(self.covariance).to(self.solver.a)

    @cached_property
    def merged(self) -> Mapping[float, ConditionalUnet1D]:
        """The PCM's networks by their weight λ."""
        return {} if self.pcm is None else merged_networks(self.pcm, self.switching, self.resolved.pcm.space)

    def switch(
        self, condition: Tensor, count: EvaluationCount, *, overlap: Overlap | None, bind_network: BindNetwork
    ) -> Switch:
        """The switch from λ to the counted data prediction for a condition (B, C), which may keep to an overlap."""
        hand_over = self.resolved.hand_over

        def bind(network: ConditionalUnet1D) -> Denoise:
            denoise = count.counting(bind_network(network, self.solver, condition))
            if overlap is not None and hand_over == "inpaint":
                return overlap.inpaint(denoise)
            if overlap is not None and hand_over == "guide":
                return overlap.guide(denoise, self.solver)
            return denoise

        if self.pcm is None:
            base = bind(self.network)
            return lambda weight: base
        return bind_switch(self.network, self.pcm, self.merged, space=self.resolved.pcm.space, bind=bind)
