from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from policy.runtime import PLAIN, Policy
from ros_nodes.policy_preparation import PolicyPreparation, prepare


class Waiting:
    """A preparation, and patience for it."""

    def __init__(self, policy: DiffusionPolicy, engine: str) -> None:
        self._ready = threading.Event()
        self.preparation = PolicyPreparation(policy, engine, 1, self._ready.set)

    def for_sampler(self, sampler: SamplerConfig) -> Policy:
        while (prepared := self.preparation.prepared(sampler)) is None:
            assert self._ready.wait(60)
            self._ready.clear()
        return prepared


@pytest.fixture(params=["eager", PLAIN])
def waiting(policy: DiffusionPolicy, request: pytest.FixtureRequest) -> Iterator[Waiting]:
    waiting = Waiting(policy, request.param)
    yield waiting
    waiting.preparation.close()


def test_a_prepared_policy_predicts_as_the_policy_with_that_sampler(
    waiting: Waiting, policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    for steps in (2, 5):
        sampler = SamplerConfig("ddim", steps)
        prepared = waiting.for_sampler(sampler)
        noise = torch.randn((1, 16, 2), generator=torch.Generator().manual_seed(0))
        expected = policy.with_sampler(sampler).predict(observations[:1], noise)
        assert prepared.sampler == sampler
        torch.testing.assert_close(
            prepared.predict(observations[:1], noise=noise).chunk, expected.chunk, rtol=0, atol=1e-3
        )


def test_what_is_prepared_is_prepared_once(waiting: Waiting) -> None:
    sampler = SamplerConfig("ddim", 2)
    assert waiting.for_sampler(sampler) is waiting.preparation.prepared(sampler)


def test_the_newest_wish_counts(waiting: Waiting) -> None:
    waiting.preparation.prepared(SamplerConfig("ddim", 2))
    waiting.preparation.prepared(SamplerConfig("ddim", 3))
    assert waiting.for_sampler(SamplerConfig("ddim", 4)).sampler.steps == 4


def test_a_sampler_that_the_policy_cannot_have_is_an_error(waiting: Waiting) -> None:
    with pytest.raises(ValueError, match="needs a PCM, and the policy has none"):
        waiting.for_sampler(SamplerConfig("pcm", 4, initialisation="repeated", formulation="drift"))


def test_an_unknown_engine_is_an_error(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="steam"):
        prepare(policy, "steam", 0)
