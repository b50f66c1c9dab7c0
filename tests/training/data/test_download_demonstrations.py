from __future__ import annotations

import gzip
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_archive import ARRAYS, EXPECTED, archive_of, contents, download, files_limited_to, write_store

from training.data import download_demonstrations
from training.data.bounded_download import DownloadError, fetch
from training.data.demonstrations import load_demonstrations
from training.data.download_demonstrations import OUTPUTS, STORE_NAME, DownloadConfig, main
from training.output_dir import locked_output_dir

# The fixture of `conftest.py`: starts a server of the given bytes, whose answers its attributes change.
Serve = Callable[[bytes], Any]


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return archive_of(write_store(tmp_path / "source.zarr"))


def test_downloads_a_store_that_loads_and_leaves_nothing_else(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    output_dir = tmp_path / "made" / "for it"
    store = download(serve_archive(archive).url, output_dir, EXPECTED)
    assert store == output_dir / STORE_NAME
    np.testing.assert_array_equal(load_demonstrations(store).actions, ARRAYS["data/action"])
    assert contents(output_dir) == [STORE_NAME]


def test_a_verified_store_is_not_downloaded_again(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    server = serve_archive(archive)
    download(server.url, tmp_path, EXPECTED)
    assert download(server.url, tmp_path, EXPECTED) == tmp_path / STORE_NAME
    assert server.requests == 1


def test_a_store_with_other_values_is_left_alone(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    other = write_store(tmp_path / STORE_NAME, {**ARRAYS, "data/action": ARRAYS["data/action"] + 1})
    server = serve_archive(archive)
    with pytest.raises(DownloadError, match=f"{STORE_NAME}: .* data/action differ; move it away"):
        download(server.url, tmp_path, EXPECTED)
    np.testing.assert_array_equal(load_demonstrations(other, task="pusht").actions, ARRAYS["data/action"] + 1)
    assert server.requests == 0


@pytest.mark.parametrize("received", [0, 1000])
def test_a_dropped_download_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, serve_archive: Serve, archive: bytes, received: int
) -> None:
    server = serve_archive(archive)
    server.drop_after = received
    with pytest.raises(DownloadError, match=f"{server.url}: the connection dropped, repeat: ") as raised:
        download(server.url, tmp_path / "out", EXPECTED)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path / "out") == []
    server.drop_after = None
    download(server.url, tmp_path / "out", EXPECTED)
    assert contents(tmp_path / "out") == [STORE_NAME]


@pytest.mark.parametrize("told", [True, False])
def test_a_download_that_is_too_large_is_cut_off(tmp_path: Path, serve_archive: Serve, told: bool) -> None:
    server = serve_archive(bytes(1 << 20))
    if not told:
        server.headers = {}
    message = "has 1048576 bytes, allowed are at most 1000" if told else "has more than 1000 bytes"
    with pytest.raises(DownloadError, match=message):
        fetch(server.url, tmp_path / "archive.zip", most_bytes=1000, allow_http=True)
    assert not (tmp_path / "archive.zip").exists() or (tmp_path / "archive.zip").stat().st_size <= 1000


def test_a_body_that_is_to_be_unpacked_on_the_way_is_refused(tmp_path: Path, serve_archive: Serve) -> None:
    server = serve_archive(gzip.compress(bytes(1 << 20)))
    server.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(DownloadError, match="comes as gzip, allowed is no Content-Encoding"):
        fetch(server.url, tmp_path / "archive.zip", most_bytes=1 << 30, allow_http=True)


def test_http_is_refused_unless_insisted_on(
    tmp_path: Path, serve_archive: Serve, archive: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve_archive(archive)
    assert main([f"output_dir={tmp_path / 'out'}", f"url={server.url}"]) == 1
    error = capsys.readouterr().err
    assert f"url must start with https://, got {server.url!r}; allow_http=true takes http, too" in error
    with pytest.raises(ValueError, match="url must start with https://"):
        download_demonstrations.download(server.url, tmp_path / "out", EXPECTED)
    assert server.requests == 0
    assert not (tmp_path / "out").exists()


def test_a_redirect_from_https_to_http_is_not_followed(
    tmp_path: Path, serve_archive: Serve, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl, which makes the certificate, is absent")
    certificate = tmp_path / "certificate.pem"
    make = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=127.0.0.1", "-days", "1"]
    made = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(certificate),
        "-out",
        str(tmp_path / "c"),
    ]
    subprocess.run([openssl, *make, *made], check=True, capture_output=True)
    with open(certificate, "a") as file:
        file.write((tmp_path / "c").read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "c"))
    over_http, over_https = serve_archive(archive), serve_archive(archive)
    over_https.status, over_https.headers = 302, {"Location": over_http.url}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    over_https.socket = context.wrap_socket(over_https.socket, server_side=True)
    url = over_https.url.replace("http:", "https:")
    with pytest.raises(DownloadError, match="leads to another protocol, allowed is https"):
        download_demonstrations.download(url, tmp_path / "out", EXPECTED)
    assert (over_https.requests, over_http.requests) == (1, 0)
    assert download(url, tmp_path / "out", EXPECTED) == tmp_path / "out" / STORE_NAME


@pytest.mark.parametrize("room", [pytest.param(2000, id="download"), pytest.param(1 << 19, id="unpacking")])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, serve_archive: Serve, room: int) -> None:
    images = {f"pusht/{STORE_NAME}/data/img/0.0.0.0": bytes(1 << 20)}
    server = serve_archive(archive_of(write_store(tmp_path / "source.zarr"), images))
    output_dir = tmp_path / "out"
    with files_limited_to(room), pytest.raises(DownloadError, match=r"out: .*File too large"):
        download(server.url, output_dir, EXPECTED)
    assert contents(output_dir) == []

    store = download(server.url, output_dir, EXPECTED)
    assert (store / "data" / "img" / "0.0.0.0").stat().st_size == 1 << 20
    assert contents(output_dir) == [STORE_NAME]


def test_an_output_folder_that_is_a_file_is_named(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match=r"file: .*File exists"):
        download(serve_archive(archive).url, tmp_path / "file", EXPECTED)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_server_that_refuses_or_is_absent_is_named(tmp_path: Path, serve_archive: Serve) -> None:
    url = serve_archive(b"").url
    with pytest.raises(DownloadError, match=r"/other\.zip: the server answers 404 Not Found"):
        download(url.replace("pusht.zip", "other.zip"), tmp_path, EXPECTED)
    with pytest.raises(DownloadError, match=r"/pusht\.zip: cannot be reached: .*Connection refused"):
        download(re.sub(r":\d+/", ":1/", url), tmp_path, EXPECTED)


def test_command_reports_an_error_in_one_line(
    tmp_path: Path, serve_archive: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve_archive(b"no zip").url
    assert main([f"output_dir={tmp_path}", f"url={url}", "allow_http=true"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {url}: wrong archive, discarded: it is damaged or not a zip file")
    assert error.count("\n") == 1


def test_what_a_killed_download_left_is_removed_by_the_next(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    left = tmp_path / "out" / ".download-abc123"
    (left / "unpacked").mkdir(parents=True)
    (left / "archive.zip").write_bytes(b"half")
    download(serve_archive(archive).url, tmp_path / "out", EXPECTED)
    assert contents(tmp_path / "out") == [STORE_NAME]


def test_two_downloads_into_one_folder_name_each_other(
    tmp_path: Path, serve_archive: Serve, archive: bytes
) -> None:
    with (
        locked_output_dir(tmp_path, OUTPUTS, overwrite=True),
        pytest.raises(RuntimeError, match=r"is in use by process \d+ .*pcm-download-demonstrations"),
    ):
        download(serve_archive(archive).url, tmp_path, EXPECTED)


@pytest.mark.parametrize(
    ("output_dir", "url", "message"),
    [
        ("", "https://a/b.zip", "output_dir must name"),
        ("out", "file:///b.zip", "url must start with https://"),
        ("out", "http://a/b.zip", "url must start with https://, .*; allow_http=true"),
        ("out", "https", "url must start with https://"),
    ],
)
def test_impossible_arguments_are_refused(output_dir: str, url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DownloadConfig(output_dir, url)


def test_command_downloads_and_verifies_the_published_values(
    tmp_path: Path, serve_archive: Serve, demonstrations_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve_archive(archive_of(demonstrations_path))
    for report in ("downloaded, verified", "already there, verified"):
        assert main([f"output_dir={tmp_path}", f"url={server.url}", "allow_http=true"]) == 0
        assert capsys.readouterr().out == f"{tmp_path / STORE_NAME}: {report}\n"
    assert server.requests == 1
    assert (
        load_demonstrations(tmp_path / STORE_NAME, task="pusht").sha256
        == load_demonstrations(demonstrations_path, task="pusht").sha256
    )
