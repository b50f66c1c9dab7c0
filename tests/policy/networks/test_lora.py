from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from policy import CheckpointError, DiffusionPolicy
from policy.networks.lora import (
    ALL_LAYERS,
    add_lora,
    load_lora_state,
    lora_parameters,
    lora_state,
    merge_lora,
    set_lora_scale,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train_a_little(network: nn.Module) -> None:
    """Weights as after training: no adapter is 0 any more."""
    with torch.no_grad():
        for parameter in lora_parameters(network):
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator(1))


def evaluate(policy: DiffusionPolicy, network: nn.Module) -> Tensor:
    sample, condition = (torch.randn(shape, generator=generator(2)) for shape in ((3, 16, 2), (3, 40)))
    with torch.no_grad():
        return network(sample, torch.tensor([0, 40, 99]), condition)


def test_new_adapters_change_nothing_and_scale_zero_is_the_base(policy: DiffusionPolicy) -> None:
    base = evaluate(policy, policy.network)
    add_lora(policy.network, rank=4, targets=ALL_LAYERS, generator=generator())
    assert torch.equal(evaluate(policy, policy.network), base)
    train_a_little(policy.network)
    adapted = evaluate(policy, policy.network)
    assert (adapted - base).abs().max() > 0.1
    calls: list[str] = []
    for name, module in policy.network.named_modules():
        if name.endswith((".down", ".up")) and hasattr(module, "weight"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    set_lora_scale(policy.network, 0)
    assert torch.equal(evaluate(policy, policy.network), base)
    assert calls == []
    set_lora_scale(policy.network, 1)
    assert torch.equal(evaluate(policy, policy.network), adapted)
    assert len(calls) == len(lora_parameters(policy.network))


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(["linear", "conv", "transposed"]),
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    rank=st.integers(1, 8),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    scale=st.floats(-1, 2),
    seed=st.integers(0, 1000),
)
def test_merged_equals_unmerged(
    kind: str,
    channels: tuple[int, int],
    rank: int,
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    scale: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    if kind == "linear":
        layer: nn.Module = nn.Linear(*channels)
        x = torch.randn(2, 3, channels[0])
    else:
        convolution = nn.Conv1d if kind == "conv" else nn.ConvTranspose1d
        layer = convolution(*channels, kernel, stride, padding, dilation=dilation)
        x = torch.randn(2, channels[0], 12)
    network = nn.Sequential(layer)
    expected_shape = network(x).shape
    add_lora(network, rank=rank, targets=ALL_LAYERS, generator=generator(seed))
    train_a_little(network)
    set_lora_scale(network, scale)
    merged = merge_lora(network, scale)
    assert type(merged[0]) is type(layer)
    assert merged(x).shape == expected_shape
    torch.testing.assert_close(merged(x), network(x), atol=1e-5, rtol=0)


def test_merged_network_equals_the_unmerged_one(policy: DiffusionPolicy) -> None:
    names = list(policy.network.state_dict())
    add_lora(policy.network, rank=4, targets=ALL_LAYERS, generator=generator())
    train_a_little(policy.network)
    set_lora_scale(policy.network, 0.3)
    merged = merge_lora(policy.network, 0.3)
    assert list(merged.state_dict()) == names
    difference = (evaluate(policy, merged) - evaluate(policy, policy.network)).abs().max()
    assert difference <= 1e-5


def test_only_adapters_are_trained(policy: DiffusionPolicy) -> None:
    add_lora(policy.network, rank=2, targets=ALL_LAYERS, generator=generator())
    trainable = [p for p in policy.network.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in lora_parameters(policy.network)}
    assert len(trainable) == len(lora_state(policy.network)) > 0


def test_targets_choose_layers_by_name(policy: DiffusionPolicy) -> None:
    add_lora(policy.network, rank=2, targets=r"middle\.0\..*", generator=generator())
    names = {name.rsplit(".", 2)[0] for name in lora_state(policy.network)}
    assert names == {"middle.0.conv_in.0", "middle.0.conv_out.0", "middle.0.film.1"}


def test_state_makes_another_copy_the_same(policy: DiffusionPolicy) -> None:
    network = policy.config.build_network(policy.task)
    network.load_state_dict(policy.network.state_dict())
    for one, seed in ((policy.network, 0), (network, 1)):
        add_lora(one, rank=3, targets=ALL_LAYERS, generator=generator(seed))
    train_a_little(policy.network)
    state = lora_state(policy.network)
    assert list(state) == [name for name in policy.network.state_dict() if name in state]
    load_lora_state(network, state, "somewhere")
    assert torch.equal(evaluate(policy, network), evaluate(policy, policy.network))
    state.pop("head.1.up.weight")
    with pytest.raises(CheckpointError, match=r"somewhere: .* weights 'head\.1\.up\.weight' are missing"):
        load_lora_state(network, state, "somewhere")


def test_same_seed_gives_the_same_adapters_and_leaves_the_global_generator_alone(
    policy: DiffusionPolicy,
) -> None:
    before = torch.get_rng_state()
    networks = [policy.config.build_network(policy.task) for _ in range(2)]
    torch.set_rng_state(before)
    for network in networks:
        add_lora(network, rank=2, targets=ALL_LAYERS, generator=generator(7))
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (lora_state(network) for network in networks)
    assert all(torch.equal(first[name], second[name]) for name in first)


# A stranger's file may hold them: matched by backtracking, they take longer than anybody waits.
SLOW = (
    *(
        "(a+)+$",
        "(.*)*x",
        "(up|up)*",
        ".*.*.*.*x",
        "(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)x",
        "(?=(.*))x",
        "a{1,9}{1,9}",
    ),
    *(r"(.)\1*", "a" * 201, "up|\n", "x++"),
)


@pytest.mark.parametrize(
    "targets", [r"(up|middle)\..*", r".*\.(conv_in|conv_out)\.\d+.*", r"down\.0\.[01]\..*", r"middle\.0\..*?"]
)
def test_usual_targets_are_allowed(policy: DiffusionPolicy, targets: str) -> None:
    add_lora(policy.network, rank=1, targets=targets, generator=generator())
    assert lora_state(policy.network)


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (0, ALL_LAYERS, "rank must be at least 1, got 0"),
        (2, "no_such_layer", "targets 'no_such_layer' match no Linear"),
        (2, "(", r"targets '\(' is no regular expression"),
        *((2, slow, "may be slow to match") for slow in SLOW),
    ],
)
def test_impossible_adapters_are_refused(
    policy: DiffusionPolicy, rank: int, targets: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        add_lora(policy.network, rank=rank, targets=targets, generator=generator())


def test_layers_that_cannot_be_adapted_are_refused(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="groups or other padding than zeros"):
        add_lora(
            nn.Sequential(nn.Conv1d(4, 4, 3, groups=2)), rank=2, targets=ALL_LAYERS, generator=generator()
        )
    add_lora(policy.network, rank=2, targets=ALL_LAYERS, generator=generator())
    with pytest.raises(ValueError, match="has adapters already"):
        add_lora(policy.network, rank=2, targets=ALL_LAYERS, generator=generator())
