"""ResNet-18 (He et al. 2016, table 1 and figure 5 left) with GroupNorm, as Diffusion Policy uses it (section 3.2).

Parameters have torchvision's names, so that its published weights fit a network of the published width.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from policy.checkpoint import CheckpointError, load_weights

CHANNELS_PER_GROUP = 16
STAGES = (1, 2, 4, 8)  # widths of the stages, in multiples of the first
NOT_NEEDED = ("fc.weight", "fc.bias")  # the classifier
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = group_norm(channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), group_norm(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(hidden)) + self.downsample(x))


class ResNet18(nn.Module):
    """Pictures (B, 3, H, W) → feature maps (B, 8·width, ⌈H/32⌉, ⌈W/32⌉).

    Args:
        width: channels of the first stage, a multiple of 16; 64 in the published network.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = group_norm(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = width
        for number, multiple in enumerate(STAGES, start=1):
            channels = multiple * width
            stage = nn.Sequential(
                BasicBlock(before, channels, stride=1 if number == 1 else 2),
                BasicBlock(channels, channels, stride=1),
            )
            self.add_module(f"layer{number}", stage)
            before = channels
        self.channels = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, len(STAGES) + 1):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return hidden


def load_published_weights(network: ResNet18, path: str | Path) -> None:
    """Load torchvision's weights from a safetensors file.

    Statistics of its batch norms and its classifier are left out: GroupNorm has none, and a policy has its own.

    Raises:
        CheckpointError: for a file that is none, or weights of another network. The message names the file.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    used = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in NOT_NEEDED and not name.endswith(BATCH_STATISTICS)
    }
    load_weights(network, used, path)
