"""A policy prepared for an engine, and for one batch size or any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib.util import find_spec

import torch
from torch import Tensor

from policy.config import PolicyConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.networks.unet import ConditionalUnet1D
from policy.prediction import Generators, Prediction
from policy.runtime.binding import PreparedNetwork, bind_to_engine
from policy.runtime.cudagraph import cudagraph
from policy.runtime.engine import EngineError, MakeEngine
from policy.runtime.onnxruntime_engine import onnxruntime
from policy.runtime.openvino_encoders import openvino_encoders
from policy.runtime.openvino_engine import openvino
from policy.runtime.torch_engines import compiled, eager
from policy.runtime.whole_chunk import MakeChunkEngine, WholeChunk
from policy.sampling import SamplerConfig
from policy.task import Task

ENGINES: Mapping[str, MakeEngine] = {
    "eager": eager,
    "compile": compiled,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
"""Engines that evaluate a network."""

CHUNK_ENGINES: Mapping[str, MakeChunkEngine] = {"cudagraph": cudagraph}
"""Engines that evaluate a whole chunk of a sampler of fixed depth."""


class Runtime:
    """A policy with its sampler, for a control loop: the same arguments of `predict` give the same answer, sooner.

    FiLM is computed once for each timestep and once for each chunk. The networks of a PCM are merged in advance. When
    the constructor returns, everything is compiled and has run once. With any batch size, what a batch needs is
    compiled when the first of its size comes. Only one thread at a time may use a runtime.

    Args:
        policy: policy with the sampler to use.
        batch_size: batch size B of every call; None for any.
        engine: one of `ENGINES` or `CHUNK_ENGINES`, or ``auto``: ``openvino`` for float32 on a CPU that has it
            and a sampler without gradients, else ``eager``.
        threads: number of CPU threads; by default as many as PyTorch uses.

    Attributes:
        policy: the same policy, with its networks evaluated by the engine.

    Raises:
        ValueError: for an unknown engine, a batch size or number of threads below 1, or if the policy cannot be sampled
            that way.
        EngineError: for an engine whose library is not installed, or that cannot serve this policy.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        *,
        batch_size: int | None = 1,
        engine: str = "auto",
        threads: int | None = None,
    ) -> None:
        if engine not in {"auto", *ENGINES, *CHUNK_ENGINES}:
            allowed = ", ".join(("auto", *ENGINES, *CHUNK_ENGINES))
            raise ValueError(f"engine must be one of {allowed}, got {engine!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.engine = best_engine(policy) if engine == "auto" else engine
        if policy.sampler.needs_gradients and self.engine != "eager":
            raise EngineError(
                f"engine {self.engine!r} computes no gradients, which sampler.hand_over=guide needs; use eager"
            )
        self.batch_size = batch_size
        self.threads = threads or torch.get_num_threads()
        self._encode: Callable[[str, Tensor], Tensor] | None = None
        if self.engine == "openvino" and policy.encoders is not None:
            self._encode = openvino_encoders(policy.encoders, self.threads)
        self._prepared: dict[ConditionalUnet1D, PreparedNetwork | None] = {}
        if self.engine in CHUNK_ENGINES:
            self.policy = self._with_whole_chunk(policy)
            return
        make_engine, horizon = ENGINES[self.engine], policy.config.horizon
        bind = bind_to_engine(make_engine, self._prepared, threads=self.threads, horizon=horizon)
        self.policy = replace(policy, bind_network=bind).with_sampler(policy.sampler)
        if batch_size is not None:
            self._warm_up(batch_size)

    def _with_whole_chunk(self, policy: DiffusionPolicy) -> DiffusionPolicy:
        if self.batch_size is None:
            raise EngineError(f"engine {self.engine!r} needs a batch size")
        make_engine = CHUNK_ENGINES[self.engine]
        whole = WholeChunk(policy, make_engine, batch_size=self.batch_size, threads=self.threads)
        return replace(policy.with_sampler(policy.sampler), compute=whole)

    @property
    def task(self) -> Task:
        return self.policy.task

    @property
    def config(self) -> PolicyConfig:
        return self.policy.config

    @property
    def sampler(self) -> SamplerConfig:
        return self.policy.sampler

    @property
    def resolved_sampler(self) -> SamplerConfig:
        return self.policy.resolved_sampler

    def encode_images(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """See `DiffusionPolicy.encode_images`. Any batch size."""
        if self._encode is None or self.policy.encoders is None:
            with self._threads():
                return self.policy.encode_images(pictures)
        self.policy.encoders.check(pictures)
        return torch.cat([self._encode(part.name, pictures[part.name]) for part in self.task.images], -1)

    def encode_image(self, name: str, pictures: Tensor) -> Tensor:
        """See `DiffusionPolicy.encode_image`. Any batch size; PyTorch keeps the calling thread's number of threads."""
        if self._encode is None:
            return self.policy.encode_image(name, pictures)
        return self._encode(name, pictures)

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
        """See `DiffusionPolicy.predict`.

        Raises:
            ValueError: as there, and for another batch size.
        """
        if self.batch_size not in (None, len(observations)):
            raise ValueError(f"observations have batch size {len(observations)}, need {self.batch_size}")
        with self._threads():
            return self.policy.predict(
                observations,
                noise=noise,
                generator=generator,
                previous=previous,
                executed=executed,
                delay=delay,
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
        """See `DiffusionPolicy.predict_chunk`.

        Raises:
            ValueError: as there, and for another batch size.
        """
        return self.predict(
            observations,
            noise=noise,
            generator=generator,
            previous=previous,
            executed=executed,
            delay=delay,
        ).chunk

    @torch.no_grad()
    def _warm_up(self, batch_size: int) -> None:
        """Compile for every number of samples that can occur."""
        config, solver = self.config, self.policy.solver
        # Without the deadline: it would stop compilation, and take its time for an iteration's.
        no_deadline = replace(self.sampler.stop, deadline_ms=0.0)
        policy = self.policy.with_sampler(replace(self.sampler, stop=no_deadline))
        minimum = self.policy.normalizer.observation.minimum
        row = torch.cat((minimum, minimum.new_zeros(config.row_dim(self.task) - len(minimum))))
        observations = row.expand(batch_size, config.observation_steps, -1)
        generator = torch.Generator().manual_seed(0)
        with self._threads():
            first = policy.predict(observations, generator=generator)
            policy.predict(observations, generator=generator, previous=first)
            if self.sampler.stop.tolerance > 0:  # it can leave any number of steps
                condition = solver.a.new_zeros(batch_size, config.cond_dim(self.task))
                shape = (batch_size, solver.steps, config.horizon, self.task.action_dim)
                states = solver.a.new_zeros(shape)
                for network in list(self._prepared):
                    denoise = self.policy.bind_network(network, solver, condition)
                    for count in range(solver.steps, 0, -1):
                        denoise(states[:, :count], slice(count))

    def _threads(self) -> AbstractContextManager[None]:
        # PyTorch's threads would compete with those of the engine.
        return _torch_threads(self.threads if self.engine in ("eager", "compile") else 1)


def best_engine(policy: DiffusionPolicy) -> str:
    """What ``auto`` stands for."""
    reference = policy.solver.a
    on_cpu = reference.device.type == "cpu" and reference.dtype == torch.float32
    if policy.sampler.needs_gradients or not on_cpu or find_spec("openvino") is None:
        return "eager"
    return "openvino"


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
