"""Low-rank adapters (LoRA, Hu et al. 2022, section 4.1) on the linear and convolutional layers of a network."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from policy.checkpoint import check_weights

ALL_LAYERS = ".*"
LARGEST_RANK = 8192
LONGEST_TARGETS, MOST_REPEATS, MOST_CHOICES = 200, 3, 6

Network = TypeVar("Network", bound=nn.Module)


class LowRankAdapted(nn.Module):
    """A layer W with an adapter beside it: y = W·x + scale·B·A·x.

    A is a layer of the same kind with as many output channels as the rank. B mixes these channels.

    Args:
        base: Linear, Conv1d or ConvTranspose1d, in one group and padded with zeros. May be on the device ``meta``.
        rank: rank of B·A.
        generator: source of the initial A. B is 0, so that at first the adapter changes nothing.

    Raises:
        ValueError: for a layer that cannot be adapted, or a rank that is not a whole number from 1 to `LARGEST_RANK`.
    """

    def __init__(
        self, base: nn.Linear | nn.Conv1d | nn.ConvTranspose1d, rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise ValueError(f"rank must be a whole number, got {rank!r}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        if rank > LARGEST_RANK:
            raise ValueError(f"rank must be at most {LARGEST_RANK}, got {rank}")
        # Layers on the device `meta` get adapters there, which take no memory.
        device = "meta" if base.weight.is_meta else "cpu"
        self.base = base
        self.scale = 1.0
        if isinstance(base, nn.Linear):
            self.down: nn.Module = skip_init(nn.Linear, base.in_features, rank, bias=False, device=device)
            self.up: nn.Module = skip_init(nn.Linear, rank, base.out_features, bias=False, device=device)
        else:
            if base.groups != 1 or base.padding_mode != "zeros":
                raise ValueError(f"cannot adapt a layer with groups or other padding than zeros: {base}")
            shape = (base.in_channels, rank, base.kernel_size, base.stride, base.padding)
            options = {"dilation": base.dilation, "bias": False, "device": device}
            if isinstance(base, nn.ConvTranspose1d):
                options["output_padding"] = base.output_padding
            self.down = skip_init(type(base), *shape, **options)
            self.up = skip_init(nn.Conv1d, rank, base.out_channels, 1, bias=False, device=device)
        self.to(base.weight)
        if base.weight.is_meta:
            return
        bound = (
            base.weight.numel() / base.weight.shape[_output_axis(base)]
        ) ** -0.5  # torch's own for a layer
        drawn = torch.rand(self.A.shape, generator=generator, device=generator.device)
        with torch.no_grad():
            self.A.copy_((2 * drawn - 1) * bound)
            self.B.zero_()

    @property
    def A(self) -> Tensor:
        """The weight of `down`: the layer's shape, with the rank in place of the output channels."""
        return self.down.get_parameter("weight")

    @property
    def B(self) -> Tensor:
        """The weight of `up`, (output channels, rank) or (output channels, rank, 1)."""
        return self.up.get_parameter("weight")

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 0:
            return self.base(x)
        return self.base(x) + self.scale * self.up(self.down(x))

    def merged(self, scale: float) -> nn.Module:
        """One plain layer with the same output."""
        layer = copy.deepcopy(self.base)
        axis = _output_axis(layer)
        product = torch.tensordot(self.B.flatten(1), self.A.movedim(axis, 0), 1).movedim(0, axis)
        with torch.no_grad():
            layer.get_parameter("weight").add_(scale * product)
        return layer


def _output_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that counts output channels."""
    return 1 if isinstance(layer, nn.ConvTranspose1d) else 0


def add_lora(network: nn.Module, *, rank: int, targets: str, generator: torch.Generator) -> None:
    """Put adapters on a network's layers, in place, and freeze all other weights. The output does not change.

    Args:
        network: network without adapters.
        rank: rank of every adapter.
        targets: regular expression that a layer's whole name must match, such as ``(up|middle)\\..*``. All Linear,
            Conv1d and ConvTranspose1d layers that match get an adapter.
        generator: source of the adapters' initial weights.

    Raises:
        ValueError: for a rank below 1, targets that are not a regular expression that is quick to match, or match no
            layer, or a network that has adapters already.
    """
    if has_lora(network):
        raise ValueError("the network has adapters already")
    pattern = _layer_pattern(targets)
    chosen = {
        name: LowRankAdapted(layer, rank, generator)
        for name, layer in network.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv1d, nn.ConvTranspose1d)) and pattern.fullmatch(name)
    }
    if not chosen:
        raise ValueError(f"targets {targets!r} match no Linear, Conv1d or ConvTranspose1d layer")
    network.requires_grad_(False)
    for name, adapted in chosen.items():
        adapted.A.requires_grad_(True)
        adapted.B.requires_grad_(True)
        _replace(network, name, adapted)


def _layer_pattern(targets: str) -> re.Pattern[str]:
    """Compile `targets`, which may come from a stranger's file: a regular expression can match for years.

    Without repeated groups and with few choices, all ways to match a layer's name are tried in a moment.
    """
    repeats, choices = len(re.findall(r"[*+?]", targets)), targets.count("|")
    if (
        len(targets) > LONGEST_TARGETS
        or repeats > MOST_REPEATS
        or choices > MOST_CHOICES
        or not re.fullmatch(r"(?:[\w.\-\[\]^$|()*+?]|\\[.wd])*", targets)
        or re.search(r"\(\?|\)[*+?]|[*+?][*+]", targets)
    ):
        shown = targets if len(targets) <= LONGEST_TARGETS else f"{targets[:LONGEST_TARGETS]}…"
        raise ValueError(
            f"targets {shown!r} may be slow to match; allowed are names, . \\. \\w \\d [ ] ( ) ^ $, at most "
            f"{MOST_REPEATS} of * + ? and {MOST_CHOICES} of |, no group repeated, {LONGEST_TARGETS} letters"
        )
    try:
        return re.compile(targets)
    except re.error as error:
        raise ValueError(f"targets {targets!r} is no regular expression ({error})") from error


def has_lora(network: nn.Module) -> bool:
    return any(True for _ in _adapted(network))


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """All A and B, in the order of `lora_state`."""
    parameters = dict(network.named_parameters())
    return [parameters[name] for name in lora_state(network)]


def lora_state(network: nn.Module) -> dict[str, Tensor]:
    """All A and B by their names in the state dict."""
    names = [f"{name}.{part}.weight" for name, _ in _adapted(network) for part in ("down", "up")]
    state = network.state_dict()
    return {name: state[name] for name in names}


def load_lora_state(network: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy all A and B into a network that has adapters.

    Args:
        source: file that they come from, for the message.

    Raises:
        CheckpointError: see `check_weights`.
    """
    check_weights(lora_state(network), tensors, source)
    network.load_state_dict(dict(tensors), strict=False)


def set_lora_scale(network: nn.Module, scale: float) -> None:
    """Scale all adapters. At 1 they are as trained; at 0 the network is the base and costs no more."""
    for _, layer in _adapted(network):
        layer.scale = scale


def merge_lora(network: Network, scale: float = 1.0) -> Network:
    """A copy of the network with the scaled adapters merged into its weights. It costs as much as the base."""
    merged = copy.deepcopy(network)
    for name, layer in list(_adapted(merged)):
        _replace(merged, name, layer.merged(scale))
    return merged


def _adapted(network: nn.Module) -> Iterator[tuple[str, LowRankAdapted]]:
    for name, module in network.named_modules():
        if isinstance(module, LowRankAdapted):
            yield name, module


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)
