"""A policy's shapes and widths, as data in the header of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from policy.networks.unet import ConditionalUnet1D


@dataclass(frozen=True)
class PolicyConfig:
    """Shapes of a policy and widths of its network.

    Attributes:
        observation_dim: size of an observation.
        action_dim: size A of an action.
        horizon: number H of actions that the network predicts.
        observation_steps: number of newest observations that the policy sees.
        action_steps: number of actions in a chunk, executed before the next chunk.
        num_train_timesteps: number of timesteps of the diffusion process.
        down_dims, step_embed_dim, kernel_size, n_groups: see `ConditionalUnet1D`.

    Raises:
        ValueError: for a horizon that the network or the chunk does not fit into, or numbers below 1.
    """

    observation_dim: int = 20
    action_dim: int = 2
    horizon: int = 16
    observation_steps: int = 2
    action_steps: int = 8
    num_train_timesteps: int = 100
    down_dims: tuple[int, ...] = (256, 512, 1024)
    step_embed_dim: int = 256
    kernel_size: int = 5
    n_groups: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "down_dims", tuple(self.down_dims))  # JSON and YAML know only lists
        halvings = 2 ** (len(self.down_dims) - 1)
        if self.horizon % halvings:
            raise ValueError(
                f"horizon must be a multiple of {halvings} for {len(self.down_dims)} levels, got {self.horizon}"
            )
        for name in ("observation_steps", "action_steps", "num_train_timesteps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.observation_steps - 1 + self.action_steps > self.horizon:
            raise ValueError(
                f"{self.action_steps} action steps after {self.observation_steps} observation steps "
                f"do not fit into a horizon of {self.horizon}"
            )

    @property
    def cond_dim(self) -> int:
        return self.observation_steps * self.observation_dim

    def build_network(self) -> ConditionalUnet1D:
        return ConditionalUnet1D(
            action_dim=self.action_dim,
            cond_dim=self.cond_dim,
            down_dims=self.down_dims,
            step_embed_dim=self.step_embed_dim,
            kernel_size=self.kernel_size,
            n_groups=self.n_groups,
        )
