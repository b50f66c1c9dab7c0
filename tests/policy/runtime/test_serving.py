from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policy import DiffusionPolicy, PcmConfig, PicardConfig, SamplerConfig
from policy.runtime import PLAIN, Runtime, serve

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


@pytest.mark.parametrize("engine", ["eager", PLAIN])
def test_a_sampler_that_the_policy_cannot_have_is_refused_before_the_first_call(
    policy: DiffusionPolicy, engine: str
) -> None:
    with pytest.raises(ValueError, match="needs a PCM, and the policy has none"):
        serve(replace(policy, sampler=IMPOSSIBLE), engine=engine)
