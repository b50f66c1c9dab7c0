"""Download of one file over https, of bounded size."""

from __future__ import annotations

import sys
from pathlib import Path

import requests
from tqdm import tqdm

SILENCE_SECONDS = 30
BLOCK_BYTES = 1 << 16


class DownloadError(RuntimeError):
    """A failure to fetch, unpack or verify a file. The message says what to do."""


def check_scheme(url: str, *, allow_http: bool) -> None:
    """Raise ValueError for a URL that is not https, nor http where that is allowed."""
    scheme = url.partition("://")[0].lower()
    if scheme == "http" and not allow_http:
        raise ValueError(f"url must start with https://, got {url!r}; allow_http=true takes http, too")
    if scheme not in ("http", "https") or "://" not in url:
        raise ValueError(f"url must start with https://, got {url!r}")


def fetch(url: str, file: Path, *, most_bytes: int, allow_http: bool = False) -> None:
    """Download into a file. What the server says about the size is not believed, but refused if it is too much.

    Raises:
        DownloadError: if the server cannot be reached, refuses, or leads to http where that is not allowed, the
            connection drops, or there is more than `most_bytes`.
        ValueError: see `check_scheme`.
    """
    check_scheme(url, allow_http=allow_http)
    with requests.Session() as session:
        if not allow_http:
            # Nor is http spoken where the server redirects to it.
            session.adapters.pop("http://")
        # Unpacking on the way could make much of little.
        session.headers["Accept-Encoding"] = "identity"
        try:
            with session.get(url, stream=True, timeout=SILENCE_SECONDS) as response:
                response.raise_for_status()
                _save(response, file, most_bytes)
        except requests.exceptions.InvalidSchema as error:
            raise DownloadError(
                f"{url}: leads to another protocol, allowed is https, and with allow_http=true http: "
                f"{_one_line(error)}"
            ) from error
        except requests.HTTPError as error:
            answer = error.response
            assert answer is not None
            raise DownloadError(f"{url}: the server answers {answer.status_code} {answer.reason}") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise DownloadError(f"{url}: cannot be reached: {_one_line(error)}") from error
        except requests.RequestException as error:
            raise DownloadError(f"{url}: the connection dropped, repeat: {_one_line(error)}") from error


def _save(response: requests.Response, file: Path, most_bytes: int) -> None:
    url, told, encoding = response.url, response.headers.get("Content-Length", ""), "Content-Encoding"
    if response.headers.get(encoding, "identity").lower() != "identity":
        raise DownloadError(f"{url}: comes as {response.headers[encoding]}, allowed is no Content-Encoding")
    expected = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None
    if expected is not None and expected > most_bytes:
        raise DownloadError(f"{url}: has {expected} bytes, allowed are at most {most_bytes}")
    received = 0
    progress = tqdm(total=expected, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
    with progress, open(file, "wb") as output:
        for block in response.iter_content(BLOCK_BYTES):
            received += len(block)
            if received > most_bytes:
                raise DownloadError(f"{url}: has more than {most_bytes} bytes, which is the most allowed")
            output.write(block)
            progress.update(len(block))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
