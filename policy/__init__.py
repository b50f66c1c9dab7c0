"""Diffusion policies and their samplers. Knows neither ROS nor training."""

from policy.checkpoint import CheckpointError
from policy.config import PolicyConfig
from policy.diffusion_policy import DiffusionPolicy
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer, Range
from policy.prediction import Prediction
from policy.sampling import (
    ParallelConfig,
    ParaSolverConfig,
    PartialConfig,
    PcmConfig,
    PicardConfig,
    SamplerConfig,
    StopConfig,
)
from policy.task import Task
from policy.task_parts import Command, ImagePart, Part, TaskError

__all__ = [
    "CheckpointError",
    "Command",
    "ConditionalUnet1D",
    "DiffusionPolicy",
    "ImagePart",
    "Normalizer",
    "ParaSolverConfig",
    "ParallelConfig",
    "Part",
    "PartialConfig",
    "PcmConfig",
    "PicardConfig",
    "PolicyConfig",
    "Prediction",
    "Range",
    "SamplerConfig",
    "StopConfig",
    "Task",
    "TaskError",
]
