from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
import torch

from policy import DiffusionPolicy, SamplerConfig
from policy.runtime import PLAIN, EngineError, Policy
from ros_nodes.policy_node import preparation
from ros_nodes.policy_node.inference_worker import started_thread
from ros_nodes.policy_node.preparation import PolicyPreparation, prepare

FIRST, SECOND, THIRD = (SamplerConfig(steps=steps) for steps in (2, 3, 4))


class Waiting:
    """A preparation, and patience for it."""

    def __init__(self, policy: DiffusionPolicy, engine: str) -> None:
        self._ready = threading.Event()
        self.warnings: list[str] = []
        self.first = prepare(policy.with_sampler(FIRST), engine, 1)
        self.preparation = PolicyPreparation(
            policy,
            self.first,
            engine=engine,
            threads=1,
            notify=self._ready.set,
            warn=self.warnings.append,
        )

    def for_sampler(self, sampler: SamplerConfig) -> Policy:
        """What acts once the engine is ready, or has failed."""
        while True:
            acting = self.preparation.follow(sampler)
            if not self.preparation.preparing:
                return acting
            assert self._ready.wait(60)
            self._ready.clear()


class Gate:
    """Holds engines back until it is opened; prepares none while it is broken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.broken = False
        self.begun: list[int] = []
        monkeypatch.setattr(preparation, "prepare", self._prepare)

    def _prepare(self, policy: DiffusionPolicy, engine: str, threads: int) -> Policy:
        self.begun.append(policy.sampler.steps)
        assert self.open.wait(60)
        if self.broken:
            raise EngineError("out of fuel")
        return prepare(policy, engine, threads)


@pytest.fixture(params=["eager", PLAIN])
def waiting(policy: DiffusionPolicy, request: pytest.FixtureRequest) -> Iterator[Waiting]:
    waiting = Waiting(policy, request.param)
    yield waiting
    waiting.preparation.close()


@pytest.fixture
def gate(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def assert_predicts_as(
    acting: Policy, policy: DiffusionPolicy, *, sampler: SamplerConfig, observations: torch.Tensor
) -> None:
    noise = torch.randn((1, 16, 2), generator=torch.Generator().manual_seed(0))
    expected = policy.with_sampler(sampler).predict(observations[:1], noise=noise).chunk
    assert acting.sampler == sampler
    predicted = acting.predict(observations[:1], noise=noise).chunk
    torch.testing.assert_close(predicted, expected, rtol=0, atol=1e-3)


def test_a_prepared_policy_predicts_as_the_policy_with_that_sampler(
    waiting: Waiting, policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    for sampler in (FIRST, SECOND, FIRST):
        assert_predicts_as(waiting.for_sampler(sampler), policy, sampler=sampler, observations=observations)


def test_what_is_prepared_is_prepared_once(waiting: Waiting) -> None:
    assert waiting.for_sampler(FIRST) is waiting.first
    assert waiting.for_sampler(SECOND) is waiting.preparation.follow(SECOND)


def test_a_policy_that_is_replaced_is_given_up_at_once(waiting: Waiting, observations: torch.Tensor) -> None:
    """Not when the garbage collector finds it: compiled networks are hundreds of MB that it knows nothing of."""
    gc.disable()
    try:
        for sampler in (SECOND, THIRD, FIRST):
            plain = waiting.preparation.follow(sampler)
            plain.predict(observations[:1])
            replaced = weakref.ref(plain)
            del plain
            acting = waiting.for_sampler(sampler)
            acting.predict(observations[:1])
            assert acting.sampler == sampler
            if acting is not replaced():
                assert replaced() is None
            replaced = weakref.ref(acting)
            del acting
            waiting.for_sampler(SamplerConfig(steps=9))
            assert replaced() is None
    finally:
        gc.enable()


def test_until_the_engine_is_ready_the_plain_policy_acts_with_the_new_sampler(
    waiting: Waiting, gate: Gate, policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    plain = waiting.preparation.follow(SECOND)
    assert waiting.preparation.preparing
    assert_predicts_as(plain, policy, sampler=SECOND, observations=observations)
    assert waiting.preparation.follow(SECOND) is plain
    gate.open.set()
    assert waiting.for_sampler(SECOND) is not plain
    assert gate.begun == [3]


def test_the_newest_wish_counts(waiting: Waiting, gate: Gate) -> None:
    for steps in (3, 4, 5, 6):
        assert waiting.preparation.follow(SamplerConfig(steps=steps)).sampler.steps == steps
    gate.open.set()
    assert waiting.for_sampler(SamplerConfig(steps=6)).sampler.steps == 6
    assert gate.begun[-1] == 6
    assert len(gate.begun) <= 2, "a wish that is past is not begun"


def test_the_engine_that_is_ready_stays_until_another_one_is(waiting: Waiting, gate: Gate) -> None:
    waiting.preparation.follow(SECOND)
    assert waiting.preparation.follow(FIRST) is waiting.first
    assert not waiting.preparation.preparing
    gate.open.set()
    assert waiting.for_sampler(SECOND).sampler == SECOND
    assert gate.begun == [3]


def test_the_plain_policy_goes_on_where_the_engine_fails(
    waiting: Waiting, gate: Gate, policy: DiffusionPolicy, observations: torch.Tensor
) -> None:
    gate.broken = True
    gate.open.set()
    for _ in range(2):
        assert_predicts_as(waiting.for_sampler(SECOND), policy, sampler=SECOND, observations=observations)
    assert waiting.warnings == [waiting.preparation.failure]
    assert "failed: out of fuel" in waiting.preparation.failure
    gate.broken = False
    assert waiting.for_sampler(THIRD).sampler == THIRD
    assert not waiting.preparation.failure


def test_an_engine_is_prepared_from_networks_of_its_own(
    waiting: Waiting, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain policy must not see what an engine does to a network while it exports it."""

    def spoil(copy: DiffusionPolicy, engine: str, threads: int) -> Policy:
        with torch.no_grad():
            for parameter in copy.network.parameters():
                parameter.zero_()
        raise EngineError("out of fuel")

    monkeypatch.setattr(preparation, "prepare", spoil)
    before = policy.network.state_dict()
    values = {name: tensor.clone() for name, tensor in before.items()}
    waiting.for_sampler(SECOND)
    assert waiting.warnings
    assert all(torch.equal(before[name], values[name]) for name in values)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_thread_keeps_the_number_of_threads_that_it_began_with(threads: int) -> None:
    before = torch.get_num_threads()
    pool = started_thread("test", threads)
    torch.set_num_threads(before + 1)  # as a runtime does while it computes
    try:
        assert pool.submit(torch.get_num_threads).result() == (threads or before)
    finally:
        torch.set_num_threads(before)
        pool.shutdown()


def test_an_unknown_engine_is_an_error(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="steam"):
        prepare(policy, "steam", 0)
