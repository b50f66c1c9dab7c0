from __future__ import annotations

import gzip
import io
import json
import re
import resource
import shutil
import ssl
import stat
import struct
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from training.data import download_demonstrations
from training.data.array_hash import array_sha256
from training.data.bounded_download import DownloadError, fetch
from training.data.demonstrations import load_demonstrations
from training.data.download_demonstrations import OUTPUTS, STORE_NAME, DownloadConfig, main
from training.output_dir import LOCK, locked_output_dir

# The fixture of `conftest.py`: starts a server of the given bytes, whose answers its attributes change.
Serve = Callable[[bytes], Any]

ARRAYS = {
    "data/state": np.arange(200, dtype=np.float32).reshape(40, 5),
    "data/action": np.arange(1, 81, dtype=np.float32).reshape(40, 2),
    "data/keypoint": np.arange(2, 722, dtype=np.float32).reshape(40, 9, 2),
    "meta/episode_ends": np.array([15, 40]),
}
ROOT = f"pusht/{STORE_NAME}"  # in an archive
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


def download(url: str, output_dir: Path, expected: dict[str, str]) -> Path:
    """From the server of these tests, which speaks http."""
    return download_demonstrations.download(url, output_dir, expected, allow_http=True)


def contents(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != LOCK)


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
    content = bytearray(archive_of(write_store(tmp_path / "other.zarr"), {f"{ROOT}/note": bytes(range(256))}))
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


HARMFUL_MEMBERS: dict[str, tuple[list[tuple[str, int]], str]] = {
    "parent": ([(f"{ROOT}/../../../escaped", 0)], "may lead out of the folder, allowed are relative paths"),
    "parent elsewhere": ([("other/../../escaped", 0)], "may lead out of the folder"),
    "absolute": ([(f"/tmp/{STORE_NAME}/escaped", 0)], "may lead out of the folder"),
    "other separator": ([(f"{ROOT}/..\\escaped", 0)], "may lead out of the folder"),
    "drive": ([(f"c:{STORE_NAME}/escaped", 0)], "may lead out of the folder"),
    "link": ([(f"{ROOT}/escaped", stat.S_IFLNK)], "is a link, allowed are files and folders"),
    "pipe": ([(f"{ROOT}/escaped", stat.S_IFIFO)], "is a special file, allowed are files and folders"),
    "twice": ([(f"{ROOT}/escaped", 0)] * 2, "is there twice"),
    "file and folder": ([(f"{ROOT}/a", 0), (f"{ROOT}/a/escaped", 0)], "is a file and a folder"),
    "second store": ([(f"other/{STORE_NAME}/.zgroup", 0)], f"it has 2 zarr stores {STORE_NAME}"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", list(HARMFUL_MEMBERS))
def test_harmful_members_are_refused_before_unpacking(
    tmp_path: Path, serve_archive: Serve, archive: bytes, case: str
) -> None:
    members, message = HARMFUL_MEMBERS[case]
    content = io.BytesIO(archive)
    with zipfile.ZipFile(content, "a") as changed:
        for name, kind in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o644) << 16
            changed.writestr(member, "../../escaped")
    server = serve_archive(content.getvalue())
    with pytest.raises(DownloadError, match=f"{server.url}: wrong archive, discarded: .*{message}"):
        download(server.url, tmp_path / "out", EXPECTED)
    assert list(tmp_path.rglob("*escaped*")) == []
    assert contents(tmp_path / "out") == []
    server.content = archive
    assert download(server.url, tmp_path / "out", EXPECTED) == tmp_path / "out" / STORE_NAME


def test_members_outside_the_store_are_passed_over(tmp_path: Path, serve_archive: Serve) -> None:
    others = {"readme.txt": b"", "pusht/other.zarr/.zgroup": b"{}", f"{STORE_NAME}.txt": b""}
    server = serve_archive(archive_of(write_store(tmp_path / "source.zarr"), others))
    store = download(server.url, tmp_path / "out", EXPECTED)
    assert contents(tmp_path / "out") == [STORE_NAME]
    assert contents(store) == contents(tmp_path / "source.zarr")


def claiming(archive: bytes, member: str, size: int) -> bytes:
    """The archive, whose directory says that a member has this size when unpacked."""
    start = archive.rindex(b"PK\x01\x02", 0, archive.rindex(member.encode()))
    return archive[: start + 24] + struct.pack("<I", size) + archive[start + 28 :]


def zip_bomb(archive: bytes, tmp_path: Path) -> tuple[bytes, str]:
    member = f"{ROOT}/data/img/0"
    with_member = archive_of(tmp_path / "source.zarr", {member: bytes(1000)})
    return claiming(with_member, member, 4_000_000_000), "unpacks to more than 1073741824 bytes"


def crowd(archive: bytes, tmp_path: Path) -> tuple[bytes, str]:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as crowded:
        for number in range(100_001):
            crowded.filelist.append(zipfile.ZipInfo(f"{number}"))
            crowded.filelist[-1].header_offset = 0
            crowded.filelist[-1].CRC = 0
        crowded._didModify = True  # type: ignore[attr-defined] # its directory is written without the members
    return content.getvalue(), "it has 100001 members, allowed are at most 100000"


def large_directory(archive: bytes, tmp_path: Path) -> tuple[bytes, str]:
    directory = b"PK\x01\x02" + bytes(42)
    size = 20_000_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    return directory.ljust(size, b"\0") + end, "its directory has 20000000 bytes, allowed are at most"


@pytest.mark.parametrize("make", [zip_bomb, crowd, large_directory])
def test_archives_that_would_grow_are_refused_before_unpacking(
    tmp_path: Path, serve_archive: Serve, archive: bytes, make: Callable[[bytes, Path], tuple[bytes, str]]
) -> None:
    content, message = make(archive, tmp_path)
    server = serve_archive(content)
    with files_limited_to(len(content)), pytest.raises(DownloadError, match=message):
        download(server.url, tmp_path / "out", EXPECTED)
    assert contents(tmp_path / "out") == []


def test_a_member_that_is_longer_than_the_directory_says_is_cut(tmp_path: Path, serve_archive: Serve) -> None:
    member = f"{ROOT}/data/img/0"
    longer = archive_of(write_store(tmp_path / "source.zarr"), {member: bytes(1 << 20)})
    server = serve_archive(claiming(longer, member, 10))
    with files_limited_to(1 << 18), pytest.raises(DownloadError, match="Bad CRC-32"):
        download(server.url, tmp_path / "out", EXPECTED)
    assert contents(tmp_path / "out") == []


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


def test_codecs_are_checked_before_hashes(tmp_path: Path, serve_archive: Serve) -> None:
    source = write_store(tmp_path / "source.zarr")
    metadata = next(source.glob("data/action/.zarray"), source / "data/action/zarr.json")
    described = json.loads(metadata.read_text())
    if metadata.name == ".zarray":
        described["compressor"] = {"id": "pickle"}
    else:
        described["codecs"] = [{"name": "numcodecs.pickle"}]
    metadata.write_text(json.dumps(described))
    server = serve_archive(archive_of(source))
    with pytest.raises(
        DownloadError, match=r"wrong archive, .*array data/action names the co.*pickle, allowed"
    ):
        download(server.url, tmp_path / "out", EXPECTED)


def test_attributes_that_macos_adds_to_a_zip_are_passed_over(tmp_path: Path, serve_archive: Serve) -> None:
    attributes = {f"__MACOSX/pusht/{STORE_NAME}/._data": b"attributes"}
    server = serve_archive(archive_of(write_store(tmp_path / "source.zarr"), attributes))
    assert (download(server.url, tmp_path / "out", EXPECTED) / "data").is_dir()
    assert list((tmp_path / "out").rglob("._*")) == []


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
