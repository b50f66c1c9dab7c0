"""Configuration of `pcm-train-pcm`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from policy.networks.lora import ALL_LAYERS
from policy.pcm import START_MODELS, TRAINED_WEIGHTS
from training.pcm.picard_consistency import LOSS_WEIGHTS
from training.training_loop import TrainingConfig


@dataclass(frozen=True)
class TrainPcmConfig:
    """See `training/conf/train_pcm.yaml`."""

    checkpoint: str = MISSING
    trajectories: str = MISSING
    output_dir: str = MISSING
    weights: str = "lora"
    rank: int = 32
    targets: str = ALL_LAYERS
    epochs: int = MISSING
    initial: str | None = None
    iterations: int | None = None
    loss_weight: str = "constant"
    states_weight: float = 1.0
    final_state_weight: float = 0.0
    chunk_weight: float = 0.0
    floor: float = 0.0
    unrolled_iterations: int = 1
    base_iterations: int = 0
    base_weight: float = 1.0
    start_model: str = "base"
    cold_starts: bool = True
    held_out_samples: int = 128
    validated_iterations: int = 3
    training: TrainingConfig = field(default_factory=TrainingConfig)
    device: str = "auto"
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, choices in (
            ("weights", TRAINED_WEIGHTS),
            ("loss_weight", LOSS_WEIGHTS),
            ("start_model", START_MODELS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("epochs", "unrolled_iterations", "held_out_samples", "validated_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, most in (("epochs", 10**6), ("unrolled_iterations", 1000), ("base_iterations", 1000)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} must be at most {most}, got {getattr(self, name)}")
        weights = ("states_weight", "final_state_weight", "chunk_weight")
        for name in (*weights, "base_weight", "floor", "base_iterations"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"one of {', '.join(weights)} must be above 0")
        if self.loss_weight == "training_free" and not self.floor > 0:
            raise ValueError("loss_weight=training_free divides by distances, which floor must keep above 0")
