"""Every sampler against outputs that were stored on 2026-11-21, before a sampler became a method × a solver.

In double precision, where rounding in another order stays below 1e-12.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from policy import DiffusionPolicy, Normalizer, PolicyConfig, Range
from policy.networks.lora import ALL_LAYERS, add_lora, lora_parameters
from policy.pcm import PCM, weights_sha256
from policy.sampling import sampler_from_options
from training.data.task_file import load_task

STORED = Path(__file__).with_name("reference_outputs.safetensors")
PUSHT = load_task("pusht").task
TINY = PolicyConfig(down_dims=(8, 16), step_embed_dim=8, n_groups=4)
SOLVERS = {"ddim": "ddim", "dpmpp_2m": "dpm_solver"}  # today's names, and those in the file

TRAINED_PCMS: Mapping[str, dict[str, Any]] = {
    "lora": {"weights": "lora", "solver": "ddim", "jacobian": "drift", "start": "fresh", "iterations": 3},
    "full": {"weights": "full", "solver": "ddim", "jacobian": "drift", "start": "fresh", "iterations": 3},
    "lora-trained-start": {
        "weights": "lora",
        "solver": "dpmpp_2m",
        "jacobian": "preconditioned",
        "start": "gaussian",
        "iterations": 1,
        "start_model": "pcm",
    },
}


def sequential_samplers() -> dict[str, dict[str, Any]]:
    chosen = [("ddim", 1), ("ddim", 10), ("ddim", 50), ("ddpm", 10)]
    chosen += [("dpmpp_2m", steps) for steps in (1, 2, 5, 15)]
    return {
        f"{SOLVERS.get(solver, solver)}-{steps}": {"solver": solver, "steps": steps}
        for solver, steps in chosen
    }


def picard_samplers() -> dict[str, dict[str, Any]]:
    samplers: dict[str, dict[str, Any]] = {}
    starts = {"fresh": "fresh", "repeated": "repeated", "held": "parasolver", "gaussian": "gaussian"}
    jacobians = ("jacobi", "drift", "semilinear", "preconditioned")
    for solver, jacobian, start, k in product(SOLVERS, jacobians, starts, (1, 3)):
        samplers[f"picard-{SOLVERS[solver]}-{jacobian}-{starts[start]}-{k}"] = {
            "method": "picard",
            "solver": solver,
            "steps": 8,
            "picard.jacobian": jacobian,
            "picard.start": start,
            "stop.iterations": k,
        }
    special = {
        "all": {},
        "window": {"parallel.window": 4, "stop.iterations": 6},
        "window-gaussian": {"parallel.window": 5, "stop.iterations": 4, "picard.start": "gaussian"},
        "tolerance": {"stop.tolerance": 0.3, "picard.jacobian": "semilinear"},
        "tolerance-window": {"stop.tolerance": 0.3, "parallel.window": 6},
        "memory": {"parallel.memory": 2, "stop.iterations": 5},
        "memory-tolerance": {"parallel.memory": 3, "stop.tolerance": 0.2},
    }
    for warm_start in ("actions", "actions_and_noise"):
        warm = {"parallel.warm_start": warm_start, "stop.iterations": 2}
        special |= {warm_start: warm, f"{warm_start}-drift": warm | {"picard.jacobian": "drift"}}
    for solver, (name, options) in product(SOLVERS, special.items()):
        twelve = {"method": "picard", "solver": solver, "steps": 12}
        samplers[f"picard-{SOLVERS[solver]}-{name}"] = twelve | options
    held = {"picard.start": "held", "picard.start_calls": 3, "stop.iterations": 4}
    samplers["picard-ddim-preconditioning"] = {"method": "picard", "steps": 12} | held
    return samplers


def parasolver_samplers() -> dict[str, dict[str, Any]]:
    special = {
        f"{n}-{k}": {"parasolver.sub_intervals": n, "stop.iterations": k}
        for n, k in product((0, 12, 6, 4, 3, 1), (1, 2, 3))
    }
    special |= {
        "window": {"parallel.window": 3, "stop.iterations": 5},
        "window-6": {"parasolver.sub_intervals": 6, "parallel.window": 2, "stop.iterations": 3},
        "calls": {"parasolver.start_calls": 4, "stop.iterations": 3},
        "calls-6": {"parasolver.start_calls": 2, "parasolver.sub_intervals": 6, "stop.iterations": 3},
        "tolerance": {"stop.tolerance": 0.3},
        "memory": {"parallel.memory": 2, "stop.iterations": 5},
        "actions": {"parallel.warm_start": "actions", "stop.iterations": 2},
    }
    return {f"parasolver-{name}": {"method": "parasolver", "steps": 12} | o for name, o in special.items()}


def pcm_samplers() -> dict[str, dict[str, Any]]:
    special = {str(k): {"stop.iterations": k} for k in (1, 2, 4)} | {
        "1000": {},
        "stiffness": {"stop.iterations": 3, "pcm.stiffness": 0.5},
        "forever": {"stop.iterations": 3, "pcm.stiffness": 0.0},
        "memory": {"stop.iterations": 5, "parallel.memory": 2},
        "actions": {"stop.iterations": 2, "parallel.warm_start": "actions"},
        "other": {
            "stop.iterations": 2,
            "steps": 9,
            "picard.jacobian": "semilinear",
            "picard.start": "repeated",
        },
    }
    return {
        f"{stored}/{pcm}-{name}": {"method": "pcm", "pcm.space": space} | options
        for (stored, space), pcm, (name, options) in product(
            (("pcm", "feature"), ("pcm_lora", "parameter")), TRAINED_PCMS, special.items()
        )
        if (pcm, space) != ("full", "parameter")
    }


SAMPLERS = sequential_samplers() | picard_samplers() | parasolver_samplers() | pcm_samplers()


@cache
def stored() -> dict[str, Tensor]:
    return load_file(STORED)


@cache
def tiny_policy() -> DiffusionPolicy:
    """Random, in double precision, its weights no smaller than those of a trained one."""
    torch.manual_seed(0)
    network = TINY.build_network(PUSHT).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    generator = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn((32, 32), generator=generator, dtype=torch.float64)).Q
    variances = 10 ** (-3 * torch.rand(32, generator=generator, dtype=torch.float64))
    normalizer = Normalizer(
        Range(torch.full((20,), 10.0), torch.full((20,), 500.0)),
        Range(torch.tensor([12.0, 25.0]), torch.tensor([511.0, 505.0])),
    )
    return DiffusionPolicy(network.double(), PUSHT, TINY, normalizer, covariance=basis * variances @ basis.T)


@cache
def tiny_pcm(name: str) -> PCM:
    described = dict(TRAINED_PCMS[name])
    network = copy.deepcopy(tiny_policy().network).float()
    generator = torch.Generator().manual_seed(3)
    trained = list(network.parameters())
    if described["weights"] == "lora":
        described |= {"rank": 2, "targets": ALL_LAYERS}
        add_lora(network, rank=2, targets=ALL_LAYERS, generator=generator)
        trained = lora_parameters(network)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return PCM(network.double(), base_sha256=weights_sha256(tiny_policy().network), steps=6, **described)


def test_every_stored_output_has_its_sampler() -> None:
    assert {name.rpartition(".")[0] for name in stored()} == SAMPLERS.keys()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_gives_its_stored_output(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Since then the first iteration after a warm start uses another share of the covariance in each state.
    then = torch.tensor(0.2, dtype=torch.float64)
    monkeypatch.setattr("policy.sampling.warm_start.shares_left", then.repeat)
    options = SAMPLERS[name]
    if options.get("method", "sequential") in ("picard", "parasolver"):
        options = {"solver": "ddim"} | options
    policy = tiny_policy()
    if "/" in name:
        pcm = next(p for p in sorted(TRAINED_PCMS, key=len, reverse=True) if name.split("/")[1].startswith(p))
        policy = policy.with_pcm(tiny_pcm(pcm))
    policy = policy.with_sampler(sampler_from_options(options))
    observations = torch.rand((3, 2, 20), generator=torch.Generator().manual_seed(1)) * 490 + 10
    generator = torch.Generator().manual_seed(7)
    prediction = policy.predict(observations, generator=generator)
    if options.get("parallel.warm_start"):
        moved = observations + 3 * torch.randn(observations.shape, generator=torch.Generator().manual_seed(2))
        prediction = policy.predict(moved, generator=generator, previous=prediction, executed=5)
    actions = policy.normalizer.action.normalize(prediction.actions)
    torch.testing.assert_close(actions, stored()[f"{name}.actions"], atol=1e-9, rtol=0)
    torch.testing.assert_close(prediction.residual, stored()[f"{name}.residual"], atol=1e-9, rtol=0)
    assert [prediction.depth, prediction.network_evaluations] == stored()[f"{name}.cost"].tolist()
