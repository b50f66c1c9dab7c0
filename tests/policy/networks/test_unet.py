from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from policy import ConditionalUnet1D


def diffusion_policy_forward(
    parameters: Iterator[Tensor],
    levels: list[tuple[int, int]],
    sample: Tensor,
    timestep: Tensor,
    condition: Tensor,
) -> Tensor:
    """Diffusion Policy's network as published, in functional form, taking its weights in its parameter order.

    That order is: middle, timestep encoder, up, down, head. It differs from the order of evaluation, so every
    part collects its weights first and is evaluated later.
    """

    def take(count: int) -> list[Tensor]:
        return [next(parameters) for _ in range(count)]

    def block(in_channels: int, out_channels: int) -> tuple[list[Tensor], bool]:
        has_projection = in_channels != out_channels
        return take(12 if has_projection else 10), has_projection

    def conv_norm_mish(x: Tensor, weights: list[Tensor]) -> Tensor:
        x = F.conv1d(x, weights[0], weights[1], padding=weights[0].shape[-1] // 2)
        return F.mish(F.group_norm(x, 8, weights[2], weights[3]))

    def run_block(x: Tensor, parts: tuple[list[Tensor], bool], feature: Tensor) -> Tensor:
        weights, has_projection = parts
        film = F.linear(F.mish(feature), weights[8], weights[9])
        film = film.reshape(len(film), 2, -1, 1)
        hidden = film[:, 0] * conv_norm_mish(x, weights[0:4]) + film[:, 1]
        hidden = conv_norm_mish(hidden, weights[4:8])
        return hidden + (F.conv1d(x, weights[10], weights[11]) if has_projection else x)

    widest = levels[-1][1]
    middle = [block(widest, widest), block(widest, widest)]
    encoder = take(4)
    up = [(block(2 * wide, narrow), block(narrow, narrow), take(2)) for narrow, wide in reversed(levels[1:])]
    down = []
    for index, (narrow, wide) in enumerate(levels):
        is_last = index == len(levels) - 1
        down.append((block(narrow, wide), block(wide, wide), [] if is_last else take(2)))
    head = take(6)

    half = encoder[0].shape[1] // 2
    angles = timestep[:, None] * torch.exp(torch.arange(half) * (-math.log(10000) / (half - 1)))[None]
    embedding = torch.cat((angles.sin(), angles.cos()), -1)
    embedding = F.linear(F.mish(F.linear(embedding, encoder[0], encoder[1])), encoder[2], encoder[3])
    feature = torch.cat((embedding, condition), -1)
    x, skips = sample.movedim(-1, -2), []
    for first, second, halve in down:
        x = run_block(run_block(x, first, feature), second, feature)
        skips.append(x)
        if halve:
            x = F.conv1d(x, halve[0], halve[1], stride=2, padding=1)
    for parts in middle:
        x = run_block(x, parts, feature)
    for first, second, double in up:
        x = run_block(run_block(torch.cat((x, skips.pop()), 1), first, feature), second, feature)
        x = F.conv_transpose1d(x, double[0], double[1], stride=2, padding=1)
    x = F.conv1d(conv_norm_mish(x, head[:4]), head[4], head[5])
    assert next(parameters, None) is None
    return x.movedim(-1, -2)


def parameter_count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_default_widths_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert parameter_count(ConditionalUnet1D(action_dim=2, cond_dim=40)) == 65_783_298
        assert (
            parameter_count(
                ConditionalUnet1D(action_dim=2, cond_dim=40, down_dims=(64, 128, 256), step_embed_dim=128)
            )
            == 4_559_554
        )


@pytest.mark.parametrize("down_dims", [(16,), (16, 32), (16, 32, 64)])
def test_weights_in_parameter_order_give_the_published_networks_output(down_dims: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = ConditionalUnet1D(action_dim=3, cond_dim=7, down_dims=down_dims, step_embed_dim=32)
    for parameter in network.parameters():  # group norms start at 1 and 0, which would hide a swap
        torch.nn.init.normal_(parameter, std=0.2)
    sample, timestep, condition = torch.randn(4, 16, 3), torch.tensor([0, 3, 50, 99]), torch.randn(4, 7)
    levels = list(zip((3, *down_dims[:-1]), down_dims, strict=True))
    with torch.no_grad():
        expected = diffusion_policy_forward(network.parameters(), levels, sample, timestep, condition)
        torch.testing.assert_close(network(sample, timestep, condition), expected, atol=1e-5, rtol=1e-5)


def test_samples_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    network = ConditionalUnet1D(action_dim=2, cond_dim=40, down_dims=(16, 32), step_embed_dim=16)
    sample, timestep, condition = torch.randn(5, 16, 2), torch.randint(100, (5,)), torch.randn(5, 40)
    with torch.no_grad():
        batch = network(sample, timestep, condition)
        for i in range(5):
            alone = network(sample[i : i + 1], timestep[i : i + 1], condition[i : i + 1])
            torch.testing.assert_close(batch[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"down_dims": ()}, "down_dims must be multiples of n_groups=8"),
        ({"down_dims": (64, 100)}, "down_dims must be multiples of n_groups=8"),
        ({"step_embed_dim": 7}, "step_embed_dim must be even"),
    ],
)
def test_impossible_widths_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConditionalUnet1D(action_dim=2, cond_dim=40, **arguments)
