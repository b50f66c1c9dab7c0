"""What a policy's network was trained for, which says how it can be sampled."""

from __future__ import annotations

from collections.abc import Mapping

from policy.sampling.config import SamplerConfig, SamplerDefaults
from policy.solvers import OWN_SOLVERS, SOLVERS

NOISE, MIP, CONSISTENCY = "noise", "mip", "consistency"

OBJECTIVES: Mapping[str, SamplerDefaults] = {
    NOISE: SamplerDefaults(),
    MIP: SamplerDefaults("mip", 2),
    CONSISTENCY: SamplerDefaults("consistency", 1),
}
"""Objective → what a sampler's ``auto`` stands for: `noise` of diffusion, `mip` (two-step regression, Pan et al. 2025,
arXiv:2512.01809), or `consistency` (a diffusion policy distilled into one step, Song et al. 2023, arXiv:2303.01469)."""

ALLOWED_SOLVERS: Mapping[str, tuple[str, ...]] = {
    NOISE: tuple(SOLVERS),
    MIP: ("mip",),
    CONSISTENCY: ("consistency", *SOLVERS),
}
assert {name for names in ALLOWED_SOLVERS.values() for name in names} == {*SOLVERS, *OWN_SOLVERS}


def check_sampler(objective: str, sampler: SamplerConfig) -> None:
    """Refuse a sampler that the network was not trained for.

    Args:
        objective: one of `OBJECTIVES`.
        sampler: resolved.

    Raises:
        ValueError: for such a sampler. The message names the option.
    """
    allowed = ALLOWED_SOLVERS[objective]
    if sampler.solver not in allowed:
        raise ValueError(
            f"sampler.solver must be one of {', '.join(allowed)} for a policy trained with objective={objective}, "
            f"got {sampler.solver!r}"
        )
    if objective == MIP and sampler.is_parallel:
        raise ValueError(
            f"sampler.method={sampler.method} needs a policy that begins with noise, and objective=mip does not"
        )
