"""How long a policy looks and plans and how wide its network is, as data in the header of its checkpoint.

What it observes and commands is its task's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from policy.image_encoder_config import ImageEncoderConfig, check_whole
from policy.networks.image_encoder import ImageEncoders
from policy.networks.unet import ConditionalUnet1D
from policy.task import Task

# Beyond these a file is damaged, or hostile, and a number of the command line is a slip.
LARGEST: Mapping[str, int] = {
    "horizon": 4096,
    "observation_steps": 4096,
    "action_steps": 4096,
    "num_train_timesteps": 10000,
    "step_embed_dim": 8192,
    "kernel_size": 255,
    "n_groups": 8192,
}
MOST_LEVELS, WIDEST = 8, 8192
MOST_PARAMETERS = 2 * 10**9


@dataclass(frozen=True)
class PolicyConfig:
    """Steps of a policy and widths of its network.

    Attributes:
        horizon: number H of actions that the network predicts.
        observation_steps: number of newest observations that the policy sees.
        action_steps: number of actions in a chunk, executed before the next chunk.
        num_train_timesteps: number of timesteps of the diffusion process.
        down_dims, step_embed_dim, kernel_size, n_groups: see `ConditionalUnet1D`.
        image_encoder: what pictures become; unused by a task without.

    Raises:
        ValueError: for a horizon that the network or the chunk does not fit into, or numbers that are not
            whole, below 1 or absurdly large.
    """

    horizon: int = 16
    observation_steps: int = 2
    action_steps: int = 8
    num_train_timesteps: int = 100
    down_dims: tuple[int, ...] = (256, 512, 1024)
    step_embed_dim: int = 256
    kernel_size: int = 5
    n_groups: int = 8
    image_encoder: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)

    def __post_init__(self) -> None:
        if isinstance(self.image_encoder, Mapping):  # as JSON has it
            object.__setattr__(self, "image_encoder", ImageEncoderConfig(**self.image_encoder))
        for name, largest in LARGEST.items():
            check_whole(name, getattr(self, name), largest)
        levels: Any = self.down_dims
        if not isinstance(levels, (list, tuple)):
            raise ValueError(f"down_dims must be a list of whole numbers, got {levels!r}")
        object.__setattr__(self, "down_dims", tuple(levels))  # JSON and YAML know only lists
        if not 1 <= len(self.down_dims) <= MOST_LEVELS:
            raise ValueError(f"down_dims must have 1 … {MOST_LEVELS} levels, got {len(self.down_dims)}")
        for width in self.down_dims:
            check_whole("down_dims", width, WIDEST)
        halvings = 2 ** (len(self.down_dims) - 1)
        if self.horizon % halvings:
            raise ValueError(
                f"horizon must be a multiple of {halvings} for {len(self.down_dims)} levels, got {self.horizon}"
            )
        if self.observation_steps - 1 + self.action_steps > self.horizon:
            raise ValueError(
                f"{self.action_steps} action steps after {self.observation_steps} observation steps "
                f"do not fit into a horizon of {self.horizon}"
            )

    def row_dim(self, task: Task) -> int:
        """Size D + F of an observation row: the vectors' numbers, then the features of each picture."""
        return task.observation_dim + len(task.images) * self.image_encoder.features

    def row_names(self, task: Task) -> tuple[str, ...]:
        """A name for each number of an observation row, such as ``arm.shoulder`` or ``camera.feature7``."""
        features = range(self.image_encoder.features)
        return (
            *task.number_names,
            *(f"{part.name}.feature{index}" for part in task.images for index in features),
        )

    def cond_dim(self, task: Task) -> int:
        """Size C of the condition: the observation rows that the policy sees, flattened."""
        return self.observation_steps * self.row_dim(task)

    def described_network(self, task: Task) -> ConditionalUnet1D:
        """The network on the device ``meta``: shapes alone, which take no memory.

        Raises:
            ValueError: for widths that the network cannot be built with.
        """
        with torch.device("meta"):
            return self._network(task)

    def build_network(self, task: Task) -> ConditionalUnet1D:
        """The network for a task, with initial weights.

        Raises:
            ValueError: for widths that the network cannot be built with, or too many parameters.
        """
        count = sum(parameter.numel() for parameter in self.described_network(task).parameters())
        if count > MOST_PARAMETERS:
            raise ValueError(
                f"down_dims={list(self.down_dims)}, step_embed_dim={self.step_embed_dim} and "
                f"kernel_size={self.kernel_size} make {count} parameters, at most {MOST_PARAMETERS} are allowed"
            )
        return self._network(task)

    def described_encoders(self, task: Task) -> ImageEncoders | None:
        """The encoders of the task's pictures on the device ``meta``; None for a task without."""
        with torch.device("meta"):
            return self.build_encoders(task)

    def build_encoders(self, task: Task) -> ImageEncoders | None:
        """The encoders of the task's pictures, with initial weights; None for a task without."""
        return ImageEncoders(task.images, self.image_encoder) if task.images else None

    def _network(self, task: Task) -> ConditionalUnet1D:
        return ConditionalUnet1D(
            action_dim=task.action_dim,
            cond_dim=self.cond_dim(task),
            down_dims=self.down_dims,
            step_embed_dim=self.step_embed_dim,
            kernel_size=self.kernel_size,
            n_groups=self.n_groups,
        )


def config_values(task: Task, config: PolicyConfig) -> dict[str, Any]:
    """A configuration as JSON knows it; ``PolicyConfig(**values)`` takes it back."""
    values = asdict(config)
    if not task.images:
        del values["image_encoder"]  # files of policies without cameras are what they always were
    return values
