"""Diffusion policies and their samplers. Knows neither ROS nor training."""

from policy.checkpoint import CheckpointError
from policy.config import PolicyConfig
from policy.diffusion_policy import DiffusionPolicy, Prediction
from policy.networks.unet import ConditionalUnet1D
from policy.normalizer import Normalizer, Range
from policy.sampling import SamplerConfig

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
