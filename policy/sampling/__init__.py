"""Samplers: short functions over (denoise, solver, noise)."""

from policy.sampling.config import (
    METHOD_NAMES,
    SamplerConfig,
    SamplerDefaults,
    sampler_from_options,
    sampler_options,
)
from policy.sampling.method_options import (
    ParallelConfig,
    ParaSolverConfig,
    PcmConfig,
    PicardConfig,
    StopConfig,
)
from policy.sampling.methods import METHODS
from policy.sampling.partial import PartialConfig
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
