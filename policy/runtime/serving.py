"""Which engine serves a policy, or none."""

from __future__ import annotations

from typing import TypeAlias

from policy.diffusion_policy import DiffusionPolicy
from policy.runtime.runtime import ENGINES, Runtime

Policy: TypeAlias = DiffusionPolicy | Runtime

PLAIN = "plain"
"""Instead of an engine: the policy as it is, which prepares little."""

ENGINE_CHOICES = ("auto", *ENGINES, PLAIN)


def serve(
    policy: DiffusionPolicy, *, batch_size: int = 1, engine: str = "auto", threads: int | None = None
) -> Policy:
    """A policy as it is served by an engine.

    Args:
        policy: with the sampler to use.
        batch_size: B, of every call; `PLAIN` serves any.
        engine: of `ENGINE_CHOICES`.
        threads: of the CPU, by default as many as PyTorch uses; `PLAIN` always uses those.

    Raises:
        ValueError, EngineError: if the policy cannot be sampled that way, or the engine cannot serve it.
    """
    if engine == PLAIN:
        return policy.with_sampler(policy.sampler)  # what it prepares, it prepares now
    return Runtime(policy, batch_size=batch_size, engine=engine, threads=threads)
