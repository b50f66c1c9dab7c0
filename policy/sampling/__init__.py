"""Samplers: short functions over (denoise, solver, x₀)."""

from policy.sampling.config import SamplerConfig
from policy.sampling.sequential import sample_sequential

__all__ = ["SamplerConfig", "sample_sequential"]
