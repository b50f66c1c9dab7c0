"""Samplers: short functions over (denoise, solver, x₀)."""

from policy.sampling.config import SAMPLERS, SamplerConfig
from policy.sampling.picard import picard_step, sample_picard
from policy.sampling.sequential import sample_sequential

__all__ = ["SAMPLERS", "SamplerConfig", "picard_step", "sample_picard", "sample_sequential"]
