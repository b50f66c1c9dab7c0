from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_archive import (
    ARRAYS,
    EXPECTED,
    ROOT,
    archive_of,
    contents,
    download,
    files_limited_to,
    write_store,
)

from training.data.bounded_download import DownloadError
from training.data.download_demonstrations import STORE_NAME

Serve = Callable[[bytes], Any]


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return archive_of(write_store(tmp_path / "source.zarr"))


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
