from __future__ import annotations

import copy

import pytest
import torch

from policy import DiffusionPolicy
from policy.networks.film import hoist_film
from policy.networks.lora import ALL_LAYERS, add_lora, lora_parameters


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
@pytest.mark.parametrize("adapted", [False, True])
def test_hoisted_film_gives_the_networks_output(
    policy: DiffusionPolicy, dtype: torch.dtype, tolerance: float, adapted: bool
) -> None:
    network = copy.deepcopy(policy.network).to(dtype)
    if adapted:
        add_lora(network, rank=2, targets=ALL_LAYERS, generator=torch.Generator())
        for parameter in lora_parameters(network):
            torch.nn.init.normal_(parameter, std=0.1)
    timesteps = torch.tensor([90, 45, 3, 0])
    sample, condition = torch.randn(4, 16, 2, dtype=dtype), torch.randn(3, 40, dtype=dtype)
    film = hoist_film(network, timesteps)
    films = film(condition)
    assert films.shape == (3, 4, sum(film.widths))
    with torch.no_grad():
        for observation in range(3):
            expected = network(sample, timesteps, condition[observation].expand(4, -1))
            found = network.forward_modulated(sample, films[observation].split(film.widths, dim=1))
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_every_block_of_the_network_is_modulated_once(policy: DiffusionPolicy) -> None:
    blocks = policy.network.blocks
    assert {id(block) for block in blocks} == {
        id(module) for module in policy.network.modules() if hasattr(module, "film")
    }
    assert len(blocks) == len({id(block) for block in blocks}) == 8
