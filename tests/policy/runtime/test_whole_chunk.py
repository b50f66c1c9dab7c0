from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PicardConfig, SamplerConfig, StopConfig
from policy.runtime import EngineError, Runtime, serve
from policy.runtime.chunk_function import ChunkFunction
from policy.runtime.cudagraph import StaticBuffers
from policy.runtime.runtime import CHUNK_ENGINES

SAMPLERS = {
    "ddpm": SamplerConfig("sequential", "ddpm", 3),
    "warm": SamplerConfig(
        "picard",
        "dpmpp_2m",
        4,
        stop=StopConfig(1),
        parallel=ParallelConfig(warm_start="actions_and_noise"),
        picard=PicardConfig("semilinear"),
    ),
    "carry": SamplerConfig("sequential", "ddim", 2, hand_over="carry"),
    "inpaint": SamplerConfig("sequential", "ddim", 2, hand_over="inpaint"),
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="engine cudagraph needs CUDA")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def over_buffers(
    function: ChunkFunction, batch_size: int, threads: int
) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    """An engine that computes into static buffers as `cudagraph` does, without capturing."""
    reference = function.policy.solver.a
    inputs = StaticBuffers(function.inputs, batch_size, reference)
    outputs = StaticBuffers(function.outputs, batch_size, reference)

    def evaluate(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        inputs.write(values)
        computed = function(*inputs.on_device.values())
        for buffer, value in zip(outputs.on_device.values(), computed, strict=True):
            buffer.copy_(value)
        return outputs.read()

    return evaluate


def assert_same(policy: DiffusionPolicy, runtime: Runtime, observations: Tensor) -> None:
    """Two chunks after one another, where the second may depend on the first."""
    before = [server.predict(observations, generator=generator()) for server in (policy, runtime)]
    after = [
        server.predict(observations + 3, generator=generator(), previous=previous, executed=5, delay=1)
        for server, previous in zip((policy, runtime), before, strict=True)
    ]
    for expected, found in (before, after):
        for name in ("chunk", "actions", "residual", "noise"):
            wanted = getattr(expected, name).cpu()
            torch.testing.assert_close(getattr(found, name).cpu(), wanted, atol=1e-2, rtol=0)  # px
        assert found.depth == expected.depth
        assert found.network_evaluations == expected.network_evaluations


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_whole_chunk_engine_gives_the_plain_samplers_answers(
    policy: DiffusionPolicy, observations: Tensor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ENGINES, "cudagraph", over_buffers)
    policy = policy.with_sampler(SAMPLERS[name])
    assert_same(policy, Runtime(policy, batch_size=3, engine="cudagraph"), observations)


@needs_cuda
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_captured_chunk_gives_the_plain_samplers_answers(
    policy: DiffusionPolicy, observations: Tensor, name: str
) -> None:
    normalizer = policy.normalizer.to("cuda")
    policy = replace(policy, network=policy.network.cuda(), normalizer=normalizer)
    policy = policy.with_sampler(SAMPLERS[name])
    assert_same(policy, Runtime(policy, batch_size=3, engine="cudagraph"), observations)


def test_buffers_keep_their_addresses_and_what_is_read_stays() -> None:
    buffers = StaticBuffers({"x": (2,), "y": ()}, 3, torch.zeros((), dtype=torch.float64))
    addresses = [buffer.data_ptr() for buffer in buffers.on_device.values()]
    x, y = torch.rand(3, 2), torch.rand(3)
    buffers.write({"x": x, "y": y})
    read = buffers.read()
    buffers.write({"x": 2 * x, "y": 2 * y})
    torch.testing.assert_close(read, {"x": x.double(), "y": y.double()}, atol=0, rtol=0)
    assert [buffer.data_ptr() for buffer in buffers.on_device.values()] == addresses


def test_buffers_refuse_other_names_and_shapes() -> None:
    buffers = StaticBuffers({"x": (2,)}, 3, torch.zeros(()))
    with pytest.raises(ValueError, match="inputs must be x, got y"):
        buffers.write({"y": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match=r"x must have shape \(3, 2\), got \(1, 2\)"):
        buffers.write({"x": torch.zeros(1, 2)})


def test_a_graph_on_the_cpu_is_refused(policy: DiffusionPolicy) -> None:
    policy = policy.with_sampler(SAMPLERS["ddpm"])
    with pytest.raises(EngineError, match="engine 'cudagraph' needs a policy on CUDA, got cpu"):
        serve(policy, engine="cudagraph")


def test_a_sampler_without_a_fixed_depth_is_refused(policy: DiffusionPolicy) -> None:
    sampler = SamplerConfig("picard", "ddim", 4, stop=StopConfig(tolerance=0.1), picard=PicardConfig("drift"))
    with pytest.raises(EngineError, match="a graph needs a sampler of fixed depth"):
        serve(policy.with_sampler(sampler), engine="cudagraph")


def test_another_sampler_leaves_the_graph_behind(
    policy: DiffusionPolicy, observations: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHUNK_ENGINES, "cudagraph", over_buffers)
    runtime = Runtime(policy.with_sampler(SAMPLERS["carry"]), batch_size=3, engine="cudagraph")
    other = SamplerConfig("sequential", "ddim", 5)
    expected, found = (
        server.with_sampler(other).predict(observations, generator=generator()).actions
        for server in (policy, runtime.policy)
    )
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
