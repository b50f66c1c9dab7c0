"""Samplers: short functions over (denoise, solver, noise)."""

from policy.sampling.config import (
    METHOD_NAMES,
    ParallelConfig,
    ParaSolverConfig,
    PartialConfig,
    PcmConfig,
    PicardConfig,
    SamplerConfig,
    SamplerDefaults,
    StopConfig,
    sampler_from_options,
    sampler_options,
)
from policy.sampling.methods import METHODS
from policy.sampling.picard import Iterate, picard_iterates, picard_step
from policy.sampling.recurrence import make_recurrence
from policy.sampling.sequential import sample_sequential
from policy.sampling.start import make_start

__all__ = [
    "METHODS",
    "METHOD_NAMES",
    "Iterate",
    "ParaSolverConfig",
    "ParallelConfig",
    "PartialConfig",
    "PcmConfig",
    "PicardConfig",
    "SamplerConfig",
    "SamplerDefaults",
    "StopConfig",
    "make_recurrence",
    "make_start",
    "picard_iterates",
    "picard_step",
    "sample_sequential",
    "sampler_from_options",
    "sampler_options",
]
