from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from shutil import which

import pytest
import torch
from torch import Tensor

from policy import DiffusionPolicy, ParallelConfig, PcmConfig, PicardConfig, SamplerConfig, StopConfig
from policy.pcm import PCM
from policy.runtime import ENGINES, EngineError, Runtime

SAMPLERS = {
    "ddim": SamplerConfig("sequential", "ddim", 5),
    "ddpm": SamplerConfig("sequential", "ddpm", 5),
    "picard": SamplerConfig("picard", "ddim", 6, stop=StopConfig(3), picard=PicardConfig("semilinear")),
    "picard from a guess": SamplerConfig(
        "picard", "ddim", 6, stop=StopConfig(2), picard=PicardConfig(start="gaussian")
    ),
    "picard on DPM-Solver++": SamplerConfig(
        "picard", "dpmpp_2m", 6, stop=StopConfig(3), picard=PicardConfig(start="gaussian")
    ),
    "picard with a tolerance": SamplerConfig(
        "picard", "ddim", 9, stop=StopConfig(tolerance=0.5), picard=PicardConfig("semilinear")
    ),
    "pcm in feature space": SamplerConfig(
        "pcm",
        "ddim",
        6,
        stop=StopConfig(4),
        picard=PicardConfig("preconditioned", "gaussian"),
        pcm=PcmConfig("feature"),
    ),
    "pcm": SamplerConfig(
        "pcm", "ddim", 6, stop=StopConfig(4), picard=PicardConfig("preconditioned", "gaussian")
    ),
    "pcm at many scales": SamplerConfig(
        "pcm",
        "ddim",
        12,
        stop=StopConfig(11),
        picard=PicardConfig("preconditioned", "fresh"),
        pcm=PcmConfig(stiffness=0.3),
    ),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture
def whole(policy: DiffusionPolicy, make_pcm: Callable[..., PCM]) -> DiffusionPolicy:
    """With all that any sampler needs."""
    return replace(policy, covariance=0.1 * torch.eye(32), pcm=make_pcm(policy, "lora"))


def needs(engine: str) -> None:
    for library in {"onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}.get(engine, ()):
        if find_spec(library) is None:
            pytest.skip(f"engine {engine} needs the Python package {library}: pip install {library}")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_eager_runtime_gives_the_plain_samplers_answer(
    whole: DiffusionPolicy, observations: Tensor, name: str, dtype: torch.dtype, tolerance: float
) -> None:
    whole.network.to(dtype)
    assert whole.pcm is not None
    whole.pcm.network.to(dtype)
    policy = whole.with_sampler(SAMPLERS[name])
    runtime = Runtime(policy, batch_size=3, engine="eager")
    expected = policy.predict(observations, generator=generator())
    found = runtime.predict(observations, generator=generator())
    span = policy.normalizer.action.maximum - policy.normalizer.action.minimum
    assert ((found.actions - expected.actions).abs() / span).max() < tolerance
    assert found.depth == expected.depth
    assert found.network_evaluations == expected.network_evaluations
    assert torch.equal(runtime.predict_chunk(observations, generator=generator()), found.chunk)


@pytest.mark.parametrize(
    ("engine", "threads"),
    [("eager", 1), ("onnxruntime", 1), ("openvino", 1), ("openvino", 2), ("openvino", 3)],
)
@pytest.mark.parametrize("name", ["picard from a guess", "picard on DPM-Solver++"])
def test_every_engine_gives_the_plain_samplers_answer(
    whole: DiffusionPolicy, engine: str, threads: int, name: str
) -> None:
    needs(engine)
    policy = whole.with_sampler(SAMPLERS[name])
    assert_same_answers(policy, Runtime(policy, batch_size=2, engine=engine, threads=threads))


def test_torch_compile_gives_the_plain_samplers_answer(whole: DiffusionPolicy) -> None:
    if which("c++") is None:
        pytest.skip("engine compile needs a C++ compiler")
    if " " in torch.__file__:
        pytest.skip("engine compile needs PyTorch at a path without spaces")
    config = replace(whole.config, down_dims=(4,), step_embed_dim=4, n_groups=2)  # seconds, not minutes
    policy = replace(
        whole, network=config.build_network(whole.task).eval(), config=config, sampler=SAMPLERS["ddim"]
    )
    assert_same_answers(policy, Runtime(policy, batch_size=2, engine="compile"))


def assert_same_answers(policy: DiffusionPolicy, runtime: Runtime) -> None:
    span = policy.normalizer.action.maximum - policy.normalizer.action.minimum
    for seed in range(3):
        drawn = torch.Generator().manual_seed(seed)
        observations = 500 * torch.rand((2, 2, 20), generator=drawn)
        noise = torch.randn((2, 16, 2), generator=drawn)
        difference = (
            runtime.predict(observations, noise=noise).actions
            - policy.predict(observations, noise=noise).actions
        )
        assert (difference.abs() / span).max() < 1e-4


def test_a_warm_start_is_passed_on(whole: DiffusionPolicy, observations: Tensor) -> None:
    policy = whole.with_sampler(
        SamplerConfig(
            "picard",
            "ddim",
            6,
            stop=StopConfig(2),
            parallel=ParallelConfig(warm_start="actions"),
            picard=PicardConfig("semilinear"),
        )
    )
    runtime = Runtime(policy, batch_size=3, engine="eager")
    previous = runtime.predict(observations, generator=generator())
    noise = torch.randn((3, 16, 2), generator=generator())
    cold, warm, plain = (
        source.predict(observations, noise=noise, generator=generator(), previous=before).actions
        for source, before in ((runtime, None), (runtime, previous), (policy, previous))
    )
    torch.testing.assert_close(warm, plain, atol=1e-2, rtol=0)  # px
    assert (warm - cold).abs().max() > 1


@pytest.mark.parametrize("name", ["picard with a tolerance", "pcm", "ddim"])
def test_nothing_new_comes_once_it_is_built(
    whole: DiffusionPolicy, observations: Tensor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, int]] = set()

    def engine(unet: torch.nn.Module, threads: int) -> Callable[[Tensor, Tensor], Tensor]:
        def evaluate(sample: Tensor, film: Tensor) -> Tensor:
            seen.add((id(unet), len(sample)))
            result: Tensor = unet(sample, film)
            return result

        return evaluate

    monkeypatch.setitem(ENGINES, "eager", engine)
    # A deadline that has always passed, so that only a warm-up without it can have seen everything.
    clock = itertools.count().__next__
    stop = replace(SAMPLERS[name].stop, deadline_ms=1.0 if SAMPLERS[name].is_parallel else 0.0)
    sampler = replace(SAMPLERS[name], stop=stop)
    runtime = Runtime(replace(whole, sampler=sampler, clock=clock), batch_size=3, engine="eager")
    built = seen.copy()
    unhurried = replace(runtime.policy, sampler=SAMPLERS[name])
    for scale in (0.1, 1.0, 10.0):
        runtime.predict(observations * scale, generator=generator())
        unhurried.predict(observations * scale, generator=generator())
    assert seen == built != set()


def test_merged_networks_are_shared_with_the_policy(whole: DiffusionPolicy) -> None:
    policy = whole.with_sampler(SAMPLERS["pcm"])
    runtime = Runtime(policy, engine="eager")
    prepared = {network for network, ready in runtime._prepared.items() if ready is not None}
    assert prepared == {policy.network, *policy.prepared_sampler.merged.values()}


def test_threads_are_those_asked_for_only_inside(whole: DiffusionPolicy, observations: Tensor) -> None:
    before = torch.get_num_threads()
    runtime = Runtime(whole.with_sampler(SAMPLERS["ddim"]), batch_size=3, engine="eager", threads=before + 1)
    counts: list[int] = []
    hook = whole.network.head.register_forward_pre_hook(lambda *_: counts.append(torch.get_num_threads()))
    runtime.predict(observations)
    hook.remove()
    assert set(counts) == {before + 1}
    assert torch.get_num_threads() == before


def test_building_draws_nothing_from_the_global_generator(whole: DiffusionPolicy) -> None:
    state = torch.get_rng_state()
    Runtime(whole.with_sampler(SAMPLERS["ddpm"]), engine="eager")
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_use_is_refused(
    whole: DiffusionPolicy, observations: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = whole.with_sampler(SAMPLERS["ddim"])
    with pytest.raises(ValueError, match=r"engine must be one of auto, eager, .*, got 'tensorrt'"):
        Runtime(policy, engine="tensorrt")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Runtime(policy, batch_size=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        Runtime(policy, threads=0)
    runtime = Runtime(policy, batch_size=2, engine="eager")
    with pytest.raises(ValueError, match="observations have batch size 3, need 2"):
        runtime.predict(observations)
    with pytest.raises(ValueError, match="must be finite"):
        runtime.predict(torch.full_like(observations[:2], torch.nan))
    monkeypatch.setattr("policy.runtime.engine.find_spec", lambda _: None)
    for engine in ("openvino", "onnxruntime"):
        with pytest.raises(
            EngineError, match=rf"engine '{engine}' needs the Python package {engine}: pip install"
        ):
            Runtime(policy, engine=engine)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_double_precision_needs_pytorch(whole: DiffusionPolicy, engine: str) -> None:
    needs(engine)
    whole.network.double()
    policy = whole.with_sampler(SAMPLERS["ddim"])
    with pytest.raises(
        EngineError, match=rf"engine '{engine}' needs float32 on the CPU, got torch\.float64 on cpu"
    ):
        Runtime(policy, engine=engine)
    assert Runtime(policy).engine == "eager"


def test_guidance_needs_pytorch_and_gets_it_by_itself(whole: DiffusionPolicy, observations: Tensor) -> None:
    policy = whole.with_sampler(SamplerConfig("sequential", "ddim", 4, hand_over="guide"))
    for engine in ("openvino", "onnxruntime", "compile", "cudagraph"):
        with pytest.raises(
            EngineError, match=f"'{engine}' computes no gradients, which sampler.hand_over=guide"
        ):
            Runtime(policy, engine=engine)
    runtime = Runtime(policy, batch_size=3)
    generator = torch.Generator().manual_seed(0)
    first = policy.predict(observations, generator=generator)
    noise = torch.randn(first.noise.shape, generator=generator)
    found, expected = (each.predict(observations, noise=noise, previous=first) for each in (runtime, policy))
    assert (runtime.engine, found.actions.requires_grad) == ("eager", False)
    torch.testing.assert_close(found.actions, expected.actions, atol=0.01, rtol=0)  # px
