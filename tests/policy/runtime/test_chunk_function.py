from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from policy import DiffusionPolicy, SamplerConfig, StopConfig
from policy.pcm import PCM
from policy.prediction import Prediction
from policy.runtime import EngineError
from policy.runtime.chunk_function import ChunkFunction, export_chunk_function
from policy.sampling import sampler_from_options

SAMPLERS: dict[str, dict[str, Any]] = {
    "ddim": {"solver": "ddim", "steps": 3},
    "ddpm": {"solver": "ddpm", "steps": 3},
    "dpmpp_3m": {"solver": "dpmpp_3m", "steps": 4},
    "picard": {"method": "picard", "solver": "dpmpp_2m", "steps": 5, "stop.iterations": 2},
    "picard, gaussian start": {
        "method": "picard",
        "steps": 4,
        "picard.start": "gaussian",
        "stop.iterations": 2,
    },
    "picard to its end, held start": {
        "method": "picard",
        "solver": "dpmpp_2m",
        "steps": 4,
        "picard.start": "held",
        "picard.start_calls": 2,
    },
    "picard, window": {"method": "picard", "steps": 5, "parallel.window": 2, "stop.iterations": 4},
    "picard, memory": {"method": "picard", "steps": 5, "parallel.memory": 2, "stop.iterations": 4},
    "picard, warm": {
        "method": "picard",
        "steps": 4,
        "parallel.warm_start": "actions",
        "stop.iterations": 1,
    },
    "picard, warm with noise": {
        "method": "picard",
        "solver": "dpmpp_2m",
        "steps": 4,
        "parallel.warm_start": "actions_and_noise",
        "stop.iterations": 2,
    },
    "parasolver": {
        "method": "parasolver",
        "solver": "ddim",
        "steps": 6,
        "parasolver.sub_intervals": 3,
        "stop.iterations": 2,
    },
    "parasolver, window": {
        "method": "parasolver",
        "solver": "ddim",
        "steps": 4,
        "parallel.window": 2,
        "stop.iterations": 2,
    },
    "pcm": {"method": "pcm", "pcm.space": "feature", "steps": 4, "stop.iterations": 3},
    "pcm-lora": {"method": "pcm", "steps": 4, "stop.iterations": 4},
    "pcm-lora, many weights": {"method": "pcm", "steps": 10, "pcm.stiffness": 0.3, "stop.iterations": 10},
    "inpaint": {"solver": "ddim", "steps": 2, "hand_over": "inpaint"},
    "blend": {"method": "picard", "steps": 4, "hand_over": "blend", "stop.iterations": 2},
    "partial": {"solver": "ddpm", "steps": 3, "partial.steps": 2, "partial.noise": "carried"},
    "carry": {"solver": "dpmpp_2m", "steps": 2, "hand_over": "carry"},
    "pcm-lora, warm": {
        "method": "pcm",
        "steps": 4,
        "parallel.warm_start": "actions",
        "stop.iterations": 2,
    },
}
CASES = [
    (name, start)
    for name, options in SAMPLERS.items()
    for start in (["cold", "warm"] if {"parallel.warm_start", "hand_over"} & options.keys() else ["cold"])
]
CASES[CASES.index(("partial", "cold"))] = ("partial", "warm")


class NothingRead(TorchDispatchMode):
    """Fails on every operation whose result or shape the host must read from data."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        reads = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        assert not reads, f"{func} reads data"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def policy(policy: DiffusionPolicy, make_pcm: Callable[..., PCM]) -> DiffusionPolicy:
    """The least network, with all that any sampler needs, in double precision."""
    torch.manual_seed(0)
    config = replace(policy.config, down_dims=(4,), step_embed_dim=4, n_groups=2)
    policy = replace(policy, network=config.build_network(policy.task).double().eval(), config=config)
    pcm = make_pcm(policy, "lora", steps=4, iterations=3)
    return replace(policy, covariance=0.1 * torch.eye(32, dtype=torch.float64), pcm=pcm)


def inputs_of(function: ChunkFunction, batch_size: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(7)
    return tuple(
        torch.rand((batch_size, *shape), generator=generator, dtype=torch.float64) * 490 + 10
        if name in ("observations", "previous_actions")
        else torch.randn((batch_size, *shape), generator=generator, dtype=torch.float64)
        for name, shape in function.inputs.items()
    )


def predicted(function: ChunkFunction, inputs: tuple[Tensor, ...]) -> Prediction:
    """The policy's own answer. What it draws are the function's inputs."""
    given = dict(zip(function.inputs, inputs, strict=True))
    previous = None
    if function.start == "warm":
        previous = replace(
            function.policy.predict(given["observations"], noise=given["noise"]),
            actions=given["previous_actions"],
            noise=given["previous_noise"],
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("policy.diffusion_policy.draw_noise", lambda *_, **__: given["further_noise"])
        return function.policy.predict(given["observations"], noise=given["noise"], previous=previous)


@pytest.mark.parametrize(("name", "start"), CASES)
def test_a_chunk_is_the_policys_answer_and_nothing_is_read(
    policy: DiffusionPolicy, name: str, start: str
) -> None:
    function = ChunkFunction(policy.with_sampler(sampler_from_options(SAMPLERS[name])), start=start)
    inputs = inputs_of(function, 3)
    with torch.no_grad(), NothingRead():
        outputs = dict(zip(function.outputs, function(*inputs), strict=True))
    expected = predicted(function, inputs)
    torch.testing.assert_close(outputs["chunk"], expected.chunk, atol=1e-8, rtol=0)  # px
    torch.testing.assert_close(outputs["actions"], expected.actions, atol=1e-8, rtol=0)
    torch.testing.assert_close(outputs["residual"], expected.residual, atol=1e-11, rtol=0)
    if "actions_noise" in outputs:
        torch.testing.assert_close(outputs["actions_noise"], expected.noise, atol=0, rtol=0)
    assert function.depth == expected.depth
    assert 3 * function.network_evaluations == expected.network_evaluations


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("ddpm", "cold"),
        ("picard, gaussian start", "cold"),
        ("picard, memory", "cold"),
        ("picard, warm with noise", "warm"),
        ("carry", "warm"),
        ("inpaint", "warm"),
        ("parasolver", "cold"),
        ("pcm", "cold"),
        ("pcm-lora", "cold"),
        ("pcm-lora, warm", "warm"),
    ],
)
def test_a_chunk_is_one_graph_for_any_batch(policy: DiffusionPolicy, name: str, start: str) -> None:
    options = SAMPLERS[name] | ({"steps": 2} if name == "ddpm" else {})
    if options.get("stop.iterations", 0) > 2 and "memory" not in name:
        options |= {"stop.iterations": 2}  # a graph takes a second for each
    function = ChunkFunction(policy.with_sampler(sampler_from_options(options)), start=start)
    graph = export_chunk_function(function).module()
    for batch_size in (1, 3):
        inputs = inputs_of(function, batch_size)
        with torch.no_grad():
            for found, expected in zip(graph(*inputs), function(*inputs), strict=True):
                torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_the_mode_sees_what_a_tolerance_reads(policy: DiffusionPolicy, observations: Tensor) -> None:
    sampler = SamplerConfig("picard", "ddim", 4, stop=StopConfig(tolerance=0.1))
    noise = torch.zeros((3, 16, 2), dtype=torch.float64)
    with torch.no_grad(), NothingRead(), pytest.raises(AssertionError, match="reads data"):
        policy.with_sampler(sampler).predict_unchecked(
            observations.double(), noise, draw=lambda shape: noise.new_zeros(shape), executed=8
        )


def test_networks_can_have_a_lower_precision_than_the_rest(policy: DiffusionPolicy) -> None:
    policy = policy.with_sampler(sampler_from_options(SAMPLERS["picard"]))
    exact, rounded = (ChunkFunction(policy, network_dtype=dtype) for dtype in (None, torch.bfloat16))
    inputs = inputs_of(exact, 3)
    with torch.no_grad():
        found, expected = rounded(*inputs)[1], exact(*inputs)[1]
    assert found.dtype == torch.float64
    difference = (found - expected).abs().max()
    assert 1e-6 < difference < 50  # px
    assert policy.network.head[1].weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"method": "picard", "stop.tolerance": 0.5}, {}, r"fixed depth, and sampler\.stop\.tolerance=0\.5"),
        (
            {"method": "picard", "stop.deadline_ms": 3.0},
            {},
            r"fixed depth, and sampler\.stop\.deadline_ms=3 ",
        ),
        ({}, {"start": "hot"}, "start must be one of cold, warm, got 'hot'"),
        ({"method": "picard"}, {"start": "warm"}, r"needs sampler\.parallel\.warm_start"),
        ({"hand_over": "guide"}, {"start": "warm"}, r"no gradients, which sampler\.hand_over=guide needs"),
        (
            {"method": "picard", "parallel.warm_start": "actions"},
            {"start": "warm", "executed": 16},
            r"executed must be in 1 … 15, got 16",
        ),
    ],
)
def test_what_has_no_graph_is_refused(
    policy: DiffusionPolicy, options: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    policy = replace(policy, sampler=sampler_from_options(options))
    with pytest.raises(EngineError, match=message):
        ChunkFunction(policy, **arguments)
