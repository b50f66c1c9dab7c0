from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from policy import (
    CheckpointError,
    DiffusionPolicy,
    ParallelConfig,
    PcmConfig,
    PicardConfig,
    SamplerConfig,
    StopConfig,
)
from policy.pcm import PCM, load_pcm, save_pcm, weights_sha256

MakePCM = Callable[..., PCM]


@pytest.fixture(params=["lora", "full"])
def pcm(policy: DiffusionPolicy, make_pcm: MakePCM, request: pytest.FixtureRequest) -> PCM:
    return make_pcm(policy, request.param, start="gaussian", start_model="pcm")


@pytest.fixture
def path(pcm: PCM, tmp_path: Path) -> Path:
    save_pcm(tmp_path / "pcm.safetensors", pcm)
    return tmp_path / "pcm.safetensors"


def rewrite(path: Path, header: dict[str, Any] | None = None, **tensors: Tensor | None) -> None:
    """Change keys of the header (None removes one) and tensors (None removes one)."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    changed = json.loads(metadata["header"]) | (header or {})
    metadata["header"] = json.dumps({key: value for key, value in changed.items() if value is not None})
    state = load_file(path) | tensors
    save_file({name: t for name, t in state.items() if t is not None}, path, metadata)


def output(policy: DiffusionPolicy, network: torch.nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    sample, condition = (torch.randn(shape, generator=generator) for shape in ((2, 16, 2), (2, 40)))
    with torch.no_grad():
        return network(sample, torch.tensor([3, 50]), condition)


def test_loaded_equals_the_saved_one_and_leaves_the_base_alone(
    policy: DiffusionPolicy, pcm: PCM, path: Path
) -> None:
    base = output(policy, policy.network)
    loaded = load_pcm(path, policy.network)
    assert replace(loaded, network=pcm.network) == pcm
    assert torch.equal(output(policy, loaded.network), output(policy, pcm.network))
    assert not torch.equal(output(policy, loaded.network), base)
    assert torch.equal(output(policy, policy.network), base)
    assert all(parameter.requires_grad for parameter in policy.network.parameters())
    assert not loaded.network.training


def test_what_it_was_not_trained_for_is_named(policy: DiffusionPolicy, make_pcm: MakePCM) -> None:
    policy = policy.with_pcm(make_pcm(policy, "lora"))
    trained_for = SamplerConfig(
        "pcm",
        "ddim",
        6,
        stop=StopConfig(2),
        picard=PicardConfig("drift", "fresh"),
        pcm=PcmConfig(stiffness=3.0),
    )
    assert policy.with_sampler(trained_for).pcm_mismatch == ""
    assert policy.with_sampler(SamplerConfig("pcm")).pcm_mismatch == ""
    other = replace(trained_for, steps=5, solver="dpmpp_2m")
    assert policy.with_sampler(other).pcm_mismatch == (
        "sampler.solver is dpmpp_2m, the PCM was trained for ddim, "
        "sampler.steps is 5, the PCM was trained for 6"
    )
    assert policy.with_sampler(replace(other, method="picard", pcm=PcmConfig())).pcm_mismatch == ""


def test_what_a_warm_start_makes_of_it_is_said(policy: DiffusionPolicy, make_pcm: MakePCM) -> None:
    cold = make_pcm(policy, "lora")
    both = replace(cold, warm_start="actions", warm_iterations=1)
    warm = replace(both, iterations=0)

    def said(pcm: PCM, warm_start: str = "auto", **options: str) -> str:
        sampler = SamplerConfig("pcm", parallel=ParallelConfig(warm_start=warm_start), **options)
        return policy.with_pcm(pcm).with_sampler(sampler).pcm_mismatch

    assert said(cold) == said(both) == said(both, "actions") == ""
    trained = (
        "the PCM was trained for sampler.parallel.warm_start actions, but every chunk starts cold, which"
    )
    assert said(both, "none") == f"{trained} uses its K = 3 for them"
    assert said(warm, "none") == f"{trained} leaves the PCM out"
    alone = "the PCM was trained from cold starts alone: after a warm start the base makes all iterations"
    assert said(cold, "actions") == alone
    carried = "the sampler carries the noise along, the PCM was trained with fresh noise"
    assert said(both, "actions_and_noise") == said(both, hand_over="carry") == carried
    fresh = "the sampler draws fresh noise, the PCM was trained with noise that is carried along"
    assert said(replace(both, warm_start="actions_and_noise"), "actions") == fresh


def test_adapters_alone_are_in_the_file(policy: DiffusionPolicy, make_pcm: MakePCM, tmp_path: Path) -> None:
    save_pcm(tmp_path / "pcm.safetensors", make_pcm(policy, "lora"))
    assert {name.split(".")[-2] for name in load_file(tmp_path / "pcm.safetensors")} == {"down", "up"}


def test_another_base_is_refused_naming_both(policy: DiffusionPolicy, path: Path) -> None:
    trained_from = weights_sha256(policy.network)[:12]
    with torch.no_grad():
        next(policy.network.parameters())[0] += 1e-6
    found = weights_sha256(policy.network)[:12]
    message = rf"pcm\.safetensors: trained from another base, .* {trained_from}…; .* {found}…"
    with pytest.raises(CheckpointError, match=message):
        load_pcm(path, policy.network)


def test_covariance_and_file_do_not_change_the_base(
    policy: DiffusionPolicy, path: Path, tmp_path: Path
) -> None:
    changed = replace(policy, covariance=torch.eye(32), provenance={"seed": 9})
    changed.save(tmp_path / "base.safetensors")
    assert load_pcm(path, DiffusionPolicy.load(tmp_path / "base.safetensors").network).iterations == 3


def test_missing_pickled_truncated_and_foreign_files_are_refused(policy: DiffusionPolicy, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no such checkpoint file"):
        load_pcm("nowhere", policy.network)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"pcm\.safetensors: truncated"):
        load_pcm(path, policy.network)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"pcm\.safetensors: a pickled file, refused"):
        load_pcm(path, policy.network)
    policy.save(path)
    with pytest.raises(
        CheckpointError, match=r"format 'pcm_policy\.diffusion_policy/2', need 'pcm_policy\.pcm/2'"
    ):
        load_pcm(path, policy.network)


def test_wrong_weights_are_named(policy: DiffusionPolicy, path: Path) -> None:
    name = next(iter(load_file(path)))
    original = load_file(path)[name]
    for tensor, message in (
        (None, "are missing"),
        (original[..., :-1].contiguous(), "have shape"),
        (torch.full_like(original, float("nan")), "are not finite"),
    ):
        rewrite(path, **{name: tensor})
        with pytest.raises(CheckpointError, match=rf"pcm\.safetensors: .*{name}' {message}"):
            load_pcm(path, policy.network)
    rewrite(path, **{name: original, "extra": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"weights 'extra' are unexpected"):
        load_pcm(path, policy.network)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"weights": None}, "missing 1 required keyword-only argument: 'weights'"),
        ({"weights": "distilled"}, "weights must be one of lora, full, got 'distilled'"),
        ({"start_model": "other"}, "start_model must be one of base, pcm, got 'other'"),
        ({"iterations": 0}, "steps and iterations must be at least 1, got 6, 0"),
        ({"warm_start": "soon"}, "warm_start must be one of none, actions, actions_and_noise, got 'soon'"),
        ({"warm_start": "actions"}, "warm_iterations belong to a warm start, got 0 and actions"),
        ({"solver": "heun"}, "solver must be one of .*, got 'heun'"),
        ({"no_such_key": 1}, "unexpected keyword argument 'no_such_key'"),
    ],
)
def test_bad_header_is_refused(
    policy: DiffusionPolicy, path: Path, header: dict[str, Any], message: str
) -> None:
    rewrite(path, header)
    with pytest.raises(CheckpointError, match=rf"pcm\.safetensors: bad header \(.*{message}"):
        load_pcm(path, policy.network)


def test_bad_adapters_are_refused(policy: DiffusionPolicy, make_pcm: MakePCM, tmp_path: Path) -> None:
    path = tmp_path / "pcm.safetensors"
    for header, message in (
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"rank": "many"}, "rank must be a whole number, got 'many'"),
        ({"targets": "none"}, "targets 'none' match no Linear"),
    ):
        save_pcm(path, make_pcm(policy, "lora"))
        rewrite(path, header)
        with pytest.raises(CheckpointError, match=rf"pcm\.safetensors: bad header \(.*{message}"):
            load_pcm(path, policy.network)
