from __future__ import annotations

import io
import re
import resource
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data.demonstrations import array_sha256, load_demonstrations
from training.data.download_demonstrations import STORE_NAME, DownloadConfig, DownloadError, download, main

# The fixture of `conftest.py`: starts a server of the given bytes, whose answers its attributes change.
Serve = Callable[[bytes], Any]

ARRAYS = {
    "data/state": np.arange(200, dtype=np.float32).reshape(40, 5),
    "data/action": np.arange(1, 81, dtype=np.float32).reshape(40, 2),
    "data/keypoint": np.arange(2, 722, dtype=np.float32).reshape(40, 9, 2),
    "meta/episode_ends": np.array([15, 40]),
}
EXPECTED = {name: array_sha256(values) for name, values in ARRAYS.items()}


def write_store(path: Path, arrays: dict[str, np.ndarray] = ARRAYS) -> Path:
    group = zarr.open_group(str(path), mode="w")
    for name, values in arrays.items():
        group[name] = values
    return path


def archive_of(store: Path, extra_members: dict[str, bytes] | None = None) -> bytes:
    """The store zipped as in the published archive, in a folder of its own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(store.rglob("*")):
            archive.write(file, f"pusht/{STORE_NAME}/{file.relative_to(store).as_posix()}")
        for name, content in (extra_members or {}).items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return archive_of(write_store(tmp_path / "source.zarr"))


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """The operating system refuses to let a file grow beyond this, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


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
    np.testing.assert_array_equal(load_demonstrations(other).actions, ARRAYS["data/action"] + 1)
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


def other_values(tmp_path: Path) -> bytes:
    changed = {**ARRAYS, "data/state": ARRAYS["data/state"] * 2, "meta/episode_ends": np.array([14, 40])}
    return archive_of(write_store(tmp_path / "other.zarr", changed))


def array_missing(tmp_path: Path) -> bytes:
    return archive_of(write_store(tmp_path / "other.zarr", {"data/state": ARRAYS["data/state"]}))


def no_store(tmp_path: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return content.getvalue()


def truncated(tmp_path: Path) -> bytes:
    return archive_of(write_store(tmp_path / "other.zarr"))[:-200]


def with_a_flipped_byte(tmp_path: Path) -> bytes:
    content = bytearray(
        archive_of(write_store(tmp_path / "other.zarr"), {f"{STORE_NAME}/note": bytes(range(256))})
    )
    content[content.index(bytes(range(100, 120)))] ^= 1
    return bytes(content)


WRONG_ARCHIVES: list[tuple[Callable[[Path], bytes], str]] = [
    (lambda tmp_path: b"<html>not here any more</html>", "damaged or not a zip file"),
    (truncated, "damaged or not a zip file"),
    (with_a_flipped_byte, "damaged or not a zip file: Bad CRC-32"),
    (no_store, f"it has no zarr store {STORE_NAME}"),
    (array_missing, "discarded: array data/action is missing"),
    (other_values, "not the published demonstrations, data/state and meta/episode_ends differ"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG_ARCHIVES)
def test_a_wrong_archive_is_named_and_discarded(
    tmp_path: Path, serve_archive: Serve, archive: bytes, wrong: Callable[[Path], bytes], message: str
) -> None:
    server = serve_archive(wrong(tmp_path))
    with pytest.raises(DownloadError, match=f"{server.url}: wrong archive.*{message}") as raised:
        download(server.url, tmp_path / "out", EXPECTED)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path / "out") == []
    server.content = archive
    download(server.url, tmp_path / "out", EXPECTED)


def test_no_member_is_written_outside_the_store(tmp_path: Path, serve_archive: Serve) -> None:
    climbing = [
        f"{STORE_NAME}/../../escaped",
        f"{STORE_NAME}/../../../escaped",
        f"{tmp_path}/{STORE_NAME}/escaped",
    ]
    source = write_store(tmp_path / "source.zarr")
    server = serve_archive(archive_of(source, dict.fromkeys(climbing, b"")))
    store = download(server.url, tmp_path / "out", EXPECTED)
    assert [path for path in tmp_path.rglob("*escaped*") if store not in path.parents] == []
    assert contents(tmp_path / "out") == [STORE_NAME]


def test_attributes_that_macos_adds_to_a_zip_are_passed_over(tmp_path: Path, serve_archive: Serve) -> None:
    attributes = {f"__MACOSX/pusht/{STORE_NAME}/._data": b"attributes"}
    server = serve_archive(archive_of(write_store(tmp_path / "source.zarr"), attributes))
    assert (download(server.url, tmp_path / "out", EXPECTED) / "data").is_dir()


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
    assert main([f"output_dir={tmp_path}", f"url={url}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {url}: wrong archive, discarded: it is damaged or not a zip file")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("output_dir", "url", "message"),
    [
        ("", "https://a/b.zip", "output_dir must name"),
        ("out", "file:///b.zip", "url must start with https://"),
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
        assert main([f"output_dir={tmp_path}", f"url={server.url}"]) == 0
        assert capsys.readouterr().out == f"{tmp_path / STORE_NAME}: {report}\n"
    assert server.requests == 1
    assert (
        load_demonstrations(tmp_path / STORE_NAME).sha256 == load_demonstrations(demonstrations_path).sha256
    )
