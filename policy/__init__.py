"""Diffusion policies and their samplers. Knows neither ROS nor training."""

from policy.checkpoint import CheckpointError
from policy.config import PolicyConfig
from policy.diffusion_policy import DiffusionPolicy, Prediction
from policy.normalizer import Normalizer, Range
from policy.sampling import SamplerConfig
from policy.unet import ConditionalUnet1D

__all__ = [
    "CheckpointError",
    "ConditionalUnet1D",
    "DiffusionPolicy",
    "Normalizer",
    "PolicyConfig",
    "Prediction",
    "Range",
    "SamplerConfig",
]
