from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policy import DiffusionPolicy, PcmConfig, PicardConfig, SamplerConfig, StopConfig
from policy.runtime import PLAIN, EngineError, Runtime, serve

IMPOSSIBLE = SamplerConfig(
    "pcm", "ddim", 4, picard=PicardConfig("drift", "repeated"), pcm=PcmConfig("feature")
)


def test_plain_is_the_policy_itself_for_any_batch(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    noise = torch.randn((3, 16, 2), generator=torch.Generator().manual_seed(0))
    served = serve(policy, engine=PLAIN)
    assert torch.equal(
        served.predict(observations, noise=noise).chunk, policy.predict(observations, noise=noise).chunk
    )


def test_an_engine_serves_the_batch_size_and_threads_asked_for(policy: DiffusionPolicy) -> None:
    served = serve(
        policy.with_sampler(SamplerConfig("sequential", "ddim", 2)), batch_size=3, engine="eager", threads=1
    )
    assert isinstance(served, Runtime)
    assert (served.batch_size, served.engine, served.threads) == (3, "eager", 1)


def test_any_batch_size_is_served_with_the_policys_answers(
    policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    pytest.importorskip("openvino")
    policy = policy.with_sampler(SamplerConfig("sequential", "ddim", 2))
    served = serve(policy, batch_size=None, threads=2)
    assert isinstance(served, Runtime)
    assert served.engine == "openvino"
    normalize = policy.normalizer.action.normalize
    for count in (5, 1, 4, 5):
        batch = observations[:1].expand(count, -1, -1)
        noise = torch.randn((count, 16, 2), generator=torch.Generator().manual_seed(count))
        found, expected = (each.predict(batch, noise=noise).actions for each in (served, policy))
        torch.testing.assert_close(normalize(found), normalize(expected), atol=1e-5, rtol=0)


def test_nothing_is_compiled_within_a_deadline(policy: DiffusionPolicy) -> None:
    sampler = SamplerConfig(
        "picard", "ddim", 4, stop=StopConfig(deadline_ms=100.0), picard=PicardConfig("drift")
    )
    assert isinstance(serve(policy.with_sampler(sampler), batch_size=None), DiffusionPolicy)


def test_a_whole_chunk_needs_a_batch_size(policy: DiffusionPolicy) -> None:
    with pytest.raises(EngineError, match="'cudagraph' needs a batch size"):
        serve(policy, batch_size=None, engine="cudagraph")


@pytest.mark.parametrize("engine", ["eager", PLAIN])
def test_a_sampler_that_the_policy_cannot_have_is_refused_before_the_first_call(
    policy: DiffusionPolicy, engine: str
) -> None:
    with pytest.raises(ValueError, match="needs a PCM, and the policy has none"):
        serve(replace(policy, sampler=IMPOSSIBLE), engine=engine)
