from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_server import SAMPLER
from server_process import ServerProcess
from torch import Tensor

from policy import DiffusionPolicy
from policy.exported.description import GraphTensor
from policy.exported.remote import PolicyServer, ServerError, is_address, open_remote
from policy.exported.wire import from_bytes, to_bytes

TENSORS = (
    GraphTensor(name="chunk", shape=(2, 3), meaning=""),
    GraphTensor(name="residual", shape=(), meaning=""),
)


@pytest.fixture(scope="module")
def checkpoint(untrained: DiffusionPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "policy.safetensors"
    untrained.save(path)
    return path


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(checkpoint)
    yield process
    process.kill()


def test_a_served_policy_answers_as_the_policy_does(
    server: ServerProcess, checkpoint: Path, observations: Tensor
) -> None:
    local, remote = DiffusionPolicy.load(checkpoint, sampler=SAMPLER), open_remote(server.address)
    assert (remote.task, remote.config, remote.sampler.solver) == (local.task, local.config, "ddim")
    observed = local.normalizer.observation
    torch.testing.assert_close(remote.description.observed.minimum, observed.minimum)
    torch.testing.assert_close(remote.description.observed.maximum, observed.maximum)
    seeds = [torch.Generator().manual_seed(7), torch.Generator().manual_seed(7)]
    expected, found = (
        policy.predict(observations, generator=seed)
        for policy, seed in zip((local, remote), seeds, strict=True)
    )
    torch.testing.assert_close(found.actions, expected.actions, atol=1e-3, rtol=0)
    assert torch.equal(found.noise, expected.noise)
    assert (found.depth, found.network_evaluations) == (expected.depth, expected.network_evaluations)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drip", "no answer within 0.2 s"),
        ("status", "HTTP status 503"),
        ("long", "the answer has more than"),
        ("short", "bad answer: no safetensors"),
        ("garbage", "bad answer: no safetensors"),
        ("tag", "has another policy by now"),
    ],
)
def test_a_server_that_misbehaves_is_named_in_one_line_and_in_time(
    server: ServerProcess, observations: Tensor, fault: str, message: str
) -> None:
    remote = open_remote(f"{server.address}/{fault}", time_limit=0.2 if fault == "drip" else 5.0)
    with pytest.raises(ServerError, match=message) as caught:
        remote.predict(observations)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{server.address}/{fault}: ")


def test_a_server_may_go_and_come_back(server: ServerProcess, checkpoint: Path, observations: Tensor) -> None:
    remote = open_remote(server.address)
    remote.predict(observations)
    server.kill()
    with pytest.raises(ServerError, match="refused"):
        remote.predict(observations)
    with pytest.raises(ServerError, match="refused"):
        open_remote(server.address)
    server.start(checkpoint)
    remote.predict(observations)


def test_a_host_that_never_answers_costs_no_more_than_the_limit() -> None:
    started = time.monotonic()
    with pytest.raises(ServerError):
        PolicyServer.at("http://192.0.2.1:9/").request("GET", b"", most=1, time_limit=0.1)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "address", ["http://", "http://host:99999/", "ftp://host", "http://a b/", "http://me:secret@host/"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        PolicyServer.at(address)


def test_files_are_no_addresses() -> None:
    assert not is_address("checkpoints/http.safetensors")
    assert is_address("https://host/policy")


@given(st.binary(max_size=200))
def test_any_bytes_are_tensors_or_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no safetensors|has the tensors"):
        from_bytes(data, TENSORS)


def test_tensors_of_another_kind_are_refused() -> None:
    good = {"chunk": np.zeros((2, 2, 3), np.float32), "residual": np.zeros(2, np.float32)}
    assert list(from_bytes(to_bytes(good), TENSORS)) == ["chunk", "residual"]
    for change, message in (
        ({"chunk": np.zeros((2, 3))}, "chunk must be float32 of shape"),
        ({"chunk": np.zeros((0, 2, 3))}, "batch size of chunk must be in 1 … 4096, got 0"),
        ({"residual": np.zeros(3)}, "residual must be float32 of shape"),
        ({"residual": np.array([0.0, np.nan])}, "residual is not finite"),
        ({"more": np.zeros(1)}, "has the tensors"),
    ):
        with pytest.raises(ValueError, match=message):
            from_bytes(to_bytes({**good, **change}), TENSORS)
