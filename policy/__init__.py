"""Diffusion policies and their samplers. Knows neither ROS nor training.

A name is imported when it is first used: a simulator or a recorder needs `policy.robot` alone, and no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "CheckpointError": "policy.checkpoint",
    "PolicyConfig": "policy.config",
    "DiffusionPolicy": "policy.diffusion_policy",
    "ConditionalUnet1D": "policy.networks.unet",
    "Normalizer": "policy.normalizer",
    "Range": "policy.normalizer",
    "Prediction": "policy.prediction",
    "ParallelConfig": "policy.sampling",
    "ParaSolverConfig": "policy.sampling",
    "PartialConfig": "policy.sampling",
    "PcmConfig": "policy.sampling",
    "PicardConfig": "policy.sampling",
    "SamplerConfig": "policy.sampling",
    "StopConfig": "policy.sampling",
    "Task": "policy.task",
    "Command": "policy.task_parts",
    "ImagePart": "policy.task_parts",
    "Part": "policy.task_parts",
    "TaskError": "policy.task_parts",
}

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

if not TYPE_CHECKING:  # which would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)
