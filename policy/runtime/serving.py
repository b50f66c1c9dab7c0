"""The choice of an engine for a policy, or of none."""

from __future__ import annotations

from typing import TypeAlias

from policy.diffusion_policy import DiffusionPolicy
from policy.runtime.runtime import CHUNK_ENGINES, ENGINES, Runtime

Policy: TypeAlias = DiffusionPolicy | Runtime

PLAIN = "plain"
"""Name for no engine: the policy as it is, which prepares little."""

ENGINE_CHOICES = ("auto", *ENGINES, *CHUNK_ENGINES, PLAIN)


def serve(
    policy: DiffusionPolicy, *, batch_size: int | None = 1, engine: str = "auto", threads: int | None = None
) -> Policy:
    """Prepare a policy for an engine.

    Args:
        policy: policy with the sampler to use.
        batch_size: batch size B of every call; None for any. `PLAIN` serves any.
        engine: one of `ENGINE_CHOICES`; ``auto`` as in `Runtime`, but `PLAIN` for any batch size and a deadline,
            within which nothing may be compiled.
        threads: number of CPU threads; by default, and always with `PLAIN`, as many as PyTorch uses.

    Raises:
        ValueError, EngineError: if the policy cannot be sampled that way, or the engine cannot serve it.
    """
    if engine == "auto" and batch_size is None and policy.sampler.stop.deadline_ms > 0:
        engine = PLAIN
    if engine == PLAIN:
        return policy.with_sampler(policy.sampler)  # prepares now, not at the first call
    return Runtime(policy, batch_size=batch_size, engine=engine, threads=threads)
