"""Conditional 1D U-Net over an action sequence (Diffusion Policy, Chi et al. 2023, section 3.1 and appendix A)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SinusoidalTimestepEmbedding(nn.Module):
    """Timestep (B,) → embedding (B, dim), sines before cosines (Vaswani et al. 2017)."""

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        # Arithmetic on the device `meta`, where shapes are checked, would import half of PyTorch's compiler.
        frequencies = torch.exp(torch.arange(half, device="cpu") * -(math.log(10000) / (half - 1)))
        # Recomputable from `dim`, so it stays out of the checkpoint.
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, timestep: Tensor) -> Tensor:
        angles = timestep[:, None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


def conv_block(in_channels: int, out_channels: int, *, kernel_size: int, n_groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
        nn.GroupNorm(n_groups, out_channels),
        nn.Mish(),
    )


class ConditionalResidualBlock1D(nn.Module):
    """Two convolutions, the first one modulated by FiLM scale and bias (Perez et al. 2018)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, feature_dim: int, kernel_size: int, n_groups: int
    ) -> None:
        super().__init__()
        self.conv_in = conv_block(in_channels, out_channels, kernel_size=kernel_size, n_groups=n_groups)
        self.conv_out = conv_block(out_channels, out_channels, kernel_size=kernel_size, n_groups=n_groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(feature_dim, 2 * out_channels))
        self.residual = (
            nn.Conv1d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        )

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Hidden states after the block; film (B, 2·C) is this block's, from timestep and condition."""
        scale, bias = film.unsqueeze(-1).chunk(2, dim=1)  # (B, C, 1) each
        hidden = torch.addcmul(bias, scale, self.conv_in(x))
        return self.conv_out(hidden) + self.residual(x)


class ConditionalUnet1D(nn.Module):
    """Noise predictor ε_θ(x, t, condition).

    It has 65,783,298 parameters with the default widths, and 4,559,554 with ``down_dims=(64, 128, 256)`` and
    ``step_embed_dim=128``. ``parameters()`` iterates in the order of Diffusion Policy's network, so that its
    published weights can be copied one by one.

    Args:
        action_dim: size A of an action.
        cond_dim: size C of the condition, the flattened observation history.
        down_dims: channels of each level; each level but the last halves the horizon.
        step_embed_dim: width of the timestep embedding.
        kernel_size: width of the convolutions; odd.
        n_groups: number of groups of the group norms; divides every width.

    Raises:
        ValueError: for widths that the network cannot be built with.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        cond_dim: int,
        down_dims: Sequence[int] = (256, 512, 1024),
        step_embed_dim: int = 256,
        kernel_size: int = 5,
        n_groups: int = 8,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to keep the horizon, got {kernel_size}")
        if not down_dims or any(width % n_groups for width in down_dims):
            raise ValueError(f"down_dims must be multiples of n_groups={n_groups}, got {tuple(down_dims)}")
        if step_embed_dim < 4 or step_embed_dim % 2:
            raise ValueError(f"step_embed_dim must be even and at least 4, got {step_embed_dim}")

        def block(in_channels: int, out_channels: int) -> ConditionalResidualBlock1D:
            return ConditionalResidualBlock1D(
                in_channels,
                out_channels,
                feature_dim=step_embed_dim + cond_dim,
                kernel_size=kernel_size,
                n_groups=n_groups,
            )

        self.action_dim, self.cond_dim = action_dim, cond_dim
        levels = list(zip((action_dim, *down_dims[:-1]), down_dims, strict=True))
        deepest = down_dims[-1]
        # The order of these attributes is the order of parameters().
        self.middle = nn.ModuleList([block(deepest, deepest), block(deepest, deepest)])
        self.timestep_encoder = nn.Sequential(
            SinusoidalTimestepEmbedding(step_embed_dim),
            nn.Linear(step_embed_dim, 4 * step_embed_dim),
            nn.Mish(),
            nn.Linear(4 * step_embed_dim, step_embed_dim),
        )
        self.up = nn.ModuleList(
            nn.ModuleList(
                [
                    block(2 * wide, narrow),  # 2 ×: the skip connection is concatenated
                    block(narrow, narrow),
                    nn.ConvTranspose1d(narrow, narrow, 4, stride=2, padding=1),
                ]
            )
            for narrow, wide in reversed(levels[1:])
        )
        self.down = nn.ModuleList(
            nn.ModuleList(
                [
                    block(narrow, wide),
                    block(wide, wide),
                    nn.Conv1d(wide, wide, 3, stride=2, padding=1) if wide_is_not_last else nn.Identity(),
                ]
            )
            for (narrow, wide), wide_is_not_last in zip(
                levels, [True] * (len(levels) - 1) + [False], strict=True
            )
        )
        self.head = nn.Sequential(
            conv_block(down_dims[0], down_dims[0], kernel_size=kernel_size, n_groups=n_groups),
            nn.Conv1d(down_dims[0], action_dim, 1),
        )

    @property
    def blocks(self) -> list[ConditionalResidualBlock1D]:
        """The blocks that FiLM modulates, in the order of evaluation."""
        levels = (*self.down, self.middle, *self.up)
        return [block for level in levels for block in list(level.children())[:2]]

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Predict the noise in ``sample``.

        Args:
            sample: (B, H, A) noisy action sequences; H a multiple of 2^(levels − 1).
            timestep: (B,) training timesteps, 0 the least noisy.
            condition: (B, C) normalised observation history.

        Returns:
            (B, H, A) predicted noise.
        """
        feature = torch.cat((self.timestep_encoder(timestep), condition), dim=-1)
        return self.forward_modulated(sample, [block.film(feature) for block in self.blocks])

    def forward_modulated(self, sample: Tensor, films: Sequence[Tensor]) -> Tensor:
        """`forward` from the FiLM scales and biases on.

        Args:
            sample: (B, H, A) noisy action sequences; H a multiple of 2^(levels − 1).
            films: (B, 2·C) for each of the `blocks`: its C scales, then its C biases.

        Returns:
            (B, H, A) predicted noise.
        """
        film = iter(films)
        x = sample.transpose(1, 2)  # (B, A, H): convolutions run along the horizon
        skips = []
        for level in self.down:
            first, second, halve = level.children()
            x = second(first(x, next(film)), next(film))
            skips.append(x)
            x = halve(x)
        for middle in self.middle:
            x = middle(x, next(film))
        for level in self.up:
            first, second, double = level.children()
            x = torch.cat((x, skips.pop()), dim=1)
            x = double(second(first(x, next(film)), next(film)))
        return self.head(x).transpose(1, 2)
