"""A server of one archive on 127.0.0.1, for the tests of the download."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class ArchiveServer(ThreadingHTTPServer):
    """Offers one file, in a way that a test may change, and records what it was asked for and sent."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), ArchiveHandler)
        self.content = content
        self.etag: str | None = '"first"'
        self.supports_range = True
        self.drop_after: int | None = None  # bytes of the body after which the connection is closed
        self.url = f"http://127.0.0.1:{self.server_port}/pusht.zip"
        self.ranges_asked: list[str | None] = []
        self.bytes_sent = 0


class ArchiveHandler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        offer = self.server
        if self.path.split("?")[0] != "/pusht.zip":
            self.send_error(404)
            return
        asked = self.headers["Range"]
        offer.ranges_asked.append(asked)
        start = 0
        if asked and offer.supports_range and self.headers["If-Range"] == offer.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(offer.content):
                self.send_error(416)
                return
        body = offer.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if offer.etag:
            self.send_header("ETag", offer.etag)
        self.end_headers()
        sent = body[: offer.drop_after]
        offer.bytes_sent += len(sent)
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the server's log out of the tests' output."""


@pytest.fixture
def serve_archive() -> Iterator[Callable[[bytes], ArchiveServer]]:
    servers = []

    def start(content: bytes) -> ArchiveServer:
        server = ArchiveServer(content)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
