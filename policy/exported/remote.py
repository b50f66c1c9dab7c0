"""A policy on another machine: an exported policy whose graph a server evaluates, as `policy.exported.wire` says."""

from __future__ import annotations

import http.client
from contextlib import closing, suppress
from dataclasses import dataclass
from socket import SHUT_RDWR, socket
from threading import Event, Timer
from urllib.parse import urlsplit

import numpy as np

from policy.exported.description import Description, ExportError, description_from_json
from policy.exported.exported_policy import ExportedPolicy
from policy.exported.graph_files import Arrays
from policy.exported.wire import (
    MOST_DESCRIPTION_BYTES,
    TAG_HEADER,
    from_bytes,
    most_bytes,
    policy_tag,
    to_bytes,
)

DESCRIPTION_SECONDS = 5.0
SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class ServerError(RuntimeError):
    """A server that cannot be reached, is too slow, or answers nonsense. It may be back later. One line."""


def is_address(text: str) -> bool:
    """Whether it is the address of a server, not the name of a file."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def open_remote(address: str, *, time_limit: float | None = None) -> ExportedPolicy:
    """The policy that a server has.

    Args:
        address: ``http://host:port/path`` or ``https://…``.
        time_limit: for each prediction, in s; by default the duration of a chunk, after which it is worthless.

    Raises:
        ServerError: if the server cannot be reached, or has no exported policy of this version.
        ValueError: for an address that is none.
    """
    server = PolicyServer.at(address)
    answer, tag = server.request("GET", b"", most=MOST_DESCRIPTION_BYTES, time_limit=DESCRIPTION_SECONDS)
    try:
        text = answer.decode()
        description = description_from_json(text, address)
    except (UnicodeDecodeError, ExportError) as error:
        raise ServerError(f"{address}: no policy server ({str(error)[:300]})") from error
    if tag != policy_tag(text):
        raise ServerError(f"{address}: the description's tag is wrong")
    chunk_seconds = description.config.action_steps / description.task.rate
    limit = chunk_seconds if time_limit is None else time_limit

    def run(inputs: Arrays) -> list[np.ndarray]:
        return server.evaluate(inputs, description, tag=tag, time_limit=limit)

    return ExportedPolicy(description, run)


@dataclass(frozen=True)
class PolicyServer:
    """Where a server is."""

    address: str
    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def at(cls, address: str) -> PolicyServer:
        """The server at an address.

        Raises:
            ValueError: for an address that is none.
        """
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"bad address {address!r}: {error}") from error
        if parts.scheme not in SCHEMES or not parts.hostname or parts.username or parts.fragment:
            raise ValueError(f"an address looks like http://host:port/path, got {address!r}")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not (address.isascii() and address.isprintable()) or " " in address:
            raise ValueError(f"an address is of plain letters without spaces, got {address!r}")
        return cls(address, parts.scheme, parts.hostname, port, path)

    def evaluate(
        self, inputs: Arrays, description: Description, *, tag: str, time_limit: float
    ) -> list[np.ndarray]:
        """The outputs of a graph for its inputs, in order.

        Raises:
            ServerError: also if the server has another policy by now.
        """
        batch_size = len(inputs["observations"])
        most = most_bytes(description.outputs, batch_size)
        answer, found = self.request("POST", to_bytes(inputs), most=most, time_limit=time_limit)
        if found != tag:
            raise ServerError(f"{self.address}: has another policy by now; open it again")
        try:
            outputs = from_bytes(answer, description.outputs)
        except ValueError as error:
            raise ServerError(f"{self.address}: bad answer: {error}") from error
        if len(outputs["actions"]) != batch_size:
            raise ServerError(
                f"{self.address}: bad answer: {len(outputs['actions'])} chunks for {batch_size}"
            )
        return list(outputs.values())

    def request(self, method: str, body: bytes, *, most: int, time_limit: float) -> tuple[bytes, str]:
        """Content and tag of the server's answer, over a connection of its own.

        Args:
            method: ``GET`` or ``POST``.
            body: what is sent.
            most: bytes that the answer may have.
            time_limit: for all of it, in s.

        Raises:
            ServerError: for no answer, another status than 200, or too long an answer.
        """
        connection = SCHEMES[self.scheme](self.host, self.port, timeout=time_limit)
        late = Event()
        opened: list[socket] = []  # an answer may outlive the connection's hold on it

        def cut() -> None:
            late.set()
            for each in opened:
                with suppress(OSError):
                    each.shutdown(SHUT_RDWR)

        # A timeout of the socket is for each of its operations: a server that drips would never end.
        watchdog = Timer(time_limit, cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            with closing(connection):
                connection.connect()
                opened.append(connection.sock)
                if not late.is_set():
                    connection.request(method, self.path, body or None)
                    with closing(connection.getresponse()) as response:
                        answer, tag = self._read(response, most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not (late.is_set() or isinstance(error, TimeoutError)):
                raise ServerError(f"{self.address}: {_reason(error)}") from error
            late.set()
        finally:
            watchdog.cancel()
        if late.is_set():
            raise ServerError(f"{self.address}: no answer within {time_limit:g} s")
        return answer, tag

    def _read(self, response: http.client.HTTPResponse, most: int) -> tuple[bytes, str]:
        answer = response.read(most + 1)
        if response.status != 200:
            said = " ".join(answer[:200].decode(errors="replace").split())
            raise ServerError(f"{self.address}: HTTP status {response.status} {said}".rstrip())
        if len(answer) > most:
            raise ServerError(f"{self.address}: the answer has more than {most} bytes")
        return answer, response.headers.get(TAG_HEADER, "")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text or type(error).__name__
