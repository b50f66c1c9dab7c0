from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from policy import CheckpointError
from policy.networks.resnet import ResNet18, group_norm, load_published_weights

transformers = pytest.importorskip("transformers")
WIDTH = 32


def published(generator: torch.Generator) -> dict[str, Tensor]:
    """Weights in torchvision's names, with a classifier and statistics of batch norms."""
    weights = {
        name: torch.randn(like.shape, generator=generator) * (0.05 if like.ndim > 1 else 1)
        for name, like in ResNet18(WIDTH).state_dict().items()
    }
    for name in [name for name in weights if re.search(r"(bn\d|downsample\.1)\.weight", name)]:
        norm = name.removesuffix("weight")
        weights[f"{norm}running_mean"] = torch.zeros_like(weights[name])
        weights[f"{norm}running_var"] = torch.ones_like(weights[name])
        weights[f"{norm}num_batches_tracked"] = torch.tensor(7)
    return weights | {"fc.weight": torch.zeros(1000, 8 * WIDTH), "fc.bias": torch.zeros(1000)}


def in_the_names_of_transformers(name: str) -> str:
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    stage = re.match(r"layer(\d)\.(\d)\.(.*)", name)
    if stage is None:
        return name
    inner = re.sub(r"^conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution", stage[3])
    inner = re.sub(r"^bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization", inner)
    inner = inner.replace("downsample.0", "shortcut.convolution")
    inner = inner.replace("downsample.1", "shortcut.normalization")
    return f"encoder.stages.{int(stage[1]) - 1}.layers.{stage[2]}.{inner}"


def test_it_is_the_resnet_of_transformers_with_group_norm(tmp_path: Path) -> None:
    weights = published(torch.Generator().manual_seed(0))
    save_file(weights, tmp_path / "resnet18.safetensors")
    network = ResNet18(WIDTH)
    load_published_weights(network, tmp_path / "resnet18.safetensors")

    sizes = [WIDTH * multiple for multiple in (1, 2, 4, 8)]
    config = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=sizes, embedding_size=WIDTH
    )
    other = transformers.ResNetModel(config)
    for name, module in list(other.named_modules()):
        if isinstance(module, nn.BatchNorm2d):  # the same norm on both sides
            above, _, last = name.rpartition(".")
            setattr(other.get_submodule(above), last, group_norm(module.num_features))
    renamed = {in_the_names_of_transformers(name): tensor for name, tensor in network.state_dict().items()}
    other.load_state_dict(renamed)
    pictures = torch.randn(2, 3, 84, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = network(pictures), other(pictures).last_hidden_state

    assert found.shape == (2, 8 * WIDTH, 3, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    save_file(ResNet18(64).state_dict(), path)

    with pytest.raises(CheckpointError, match=r"wide.safetensors: wrong architecture, weights 'bn1.bias'"):
        load_published_weights(ResNet18(WIDTH), path)
    path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"wide.safetensors: not a safetensors file"):
        load_published_weights(ResNet18(WIDTH), path)
