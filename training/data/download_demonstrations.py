"""`pcm-download-demonstrations`: fetches the published PushT demonstrations and verifies them.

The archive is the one published with Diffusion Policy (Chi et al., RSS 2023; MIT licence). An interrupted
download is kept and resumed; the store appears under its name only once it is complete and verified.
"""

from __future__ import annotations

import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from tqdm import tqdm

from training.command import run_command
from training.data.demonstrations import DemonstrationError, array_sha256, load_demonstrations

PUBLISHED_URL = "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip"
STORE_NAME = "pusht_cchi_v7_replay.zarr"
# `array_sha256` of the published arrays. The archive's images are not covered: nothing here reads them.
PUBLISHED_SHA256: Mapping[str, str] = {
    "data/state": "d67c8c6def3bb2d9661a69910ba9423abea4efa57f2c1ecb24d7f2bdd315dd8e",
    "data/action": "fadfafe07c8af64faa08fded2fb0575672b3acf249122bd9c3cd97f16e569993",
    "data/keypoint": "d1760465021e02cfc587a4d7b623449861d9c92b42cb1d18e14f6c8e42e3b569",
    "meta/episode_ends": "d4f698dd21760ad0e4ece8c13cea3d44aa632289a52dfb6ae25923d75e98752e",
}
SILENCE_SECONDS = 30
BLOCK_BYTES = 1 << 16


class DownloadError(RuntimeError):
    """The demonstrations could not be fetched, unpacked or verified; the message says what to do."""


class _WrongContent(Exception):
    """What was fetched, or lies there already, is not the published demonstrations."""


@dataclass(frozen=True)
class DownloadConfig:
    """Arguments of `pcm-download-demonstrations`, explained in `conf/download_demonstrations.yaml`."""

    output_dir: str
    url: str = PUBLISHED_URL

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name a folder")
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"url must start with https:// or http://, got {self.url!r}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("download_demonstrations", DownloadConfig, _download_and_say, argv)


def download_demonstrations(config: DownloadConfig) -> Path:
    """`download` with the arguments of the command."""
    return download(config.url, config.output_dir)


def download(url: str, output_dir: str | Path, expected_sha256: Mapping[str, str] = PUBLISHED_SHA256) -> Path:
    """Fetches, unpacks and verifies the archive at `url`, unless its store is in `output_dir` already.

    Returns the store's path, `<output_dir>/pusht_cchi_v7_replay.zarr`. Raises DownloadError when the server
    cannot be reached or refuses, the connection drops (repeat to resume), the archive is damaged or
    holds anything else, the disk is full, or a store with other values is there, which is left alone.
    """
    output_dir = Path(output_dir)
    store = output_dir / STORE_NAME
    if store.exists():
        try:
            _verify(store, expected_sha256)
        except _WrongContent as error:
            raise DownloadError(f"{store}: {error}; move it away to download the published one") from error
        return store
    archive = output_dir / f"{STORE_NAME}.download"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if not archive.exists():
            _fetch(url, archive)
        with TemporaryDirectory(dir=output_dir, prefix=".unpacking-") as folder:
            unpacked = _unpack(archive, Path(folder))
            _verify(unpacked, expected_sha256)
            unpacked.rename(store)
        archive.unlink()
    except _WrongContent as error:
        archive.unlink()
        raise DownloadError(f"{url}: wrong archive, discarded: {error}") from error
    except OSError as error:
        raise DownloadError(f"{output_dir}: {error}; what is downloaded is kept, repeat to go on") from error
    return store


def _download_and_say(config: DownloadConfig) -> None:
    was_there = (Path(config.output_dir) / STORE_NAME).exists()
    store = download_demonstrations(config)
    print(f"{store}: {'already there' if was_there else 'downloaded'}, verified")


def _verify(store: Path, expected_sha256: Mapping[str, str]) -> None:
    try:
        demonstrations = load_demonstrations(store)
    except DemonstrationError as error:
        raise _WrongContent(str(error).removeprefix(f"{store}: ")) from error
    arrays = {
        "data/state": demonstrations.states,
        "data/action": demonstrations.actions,
        "data/keypoint": demonstrations.observations[:, :18].reshape(-1, 9, 2),
        "meta/episode_ends": demonstrations.episode_ends,
    }
    differing = [name for name, values in arrays.items() if array_sha256(values) != expected_sha256[name]]
    if differing:
        raise _WrongContent(f"not the published demonstrations, {' and '.join(differing)} differ")


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpacks the archive's store into `folder`; `zipfile` lets no member's name lead out of it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if STORE_NAME in PurePosixPath(name).parts]
            opened.extractall(folder, members)
    # RuntimeError is what zipfile raises for an encrypted member or an unknown compression.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _WrongContent(f"it is damaged or not a zip file: {error}") from error
    # By its metadata, since a zip file made on macOS has a second folder of that name, with attributes only.
    stores = [
        found.parent for group in (".zgroup", "zarr.json") for found in folder.rglob(f"{STORE_NAME}/{group}")
    ]
    if not stores:
        raise _WrongContent(f"it has no zarr store {STORE_NAME}")
    return stores[0]


def _fetch(url: str, archive: Path) -> None:
    """Downloads to `archive` by way of a `.part` file, from where an earlier call left off if the server can.

    A part is continued only while the server's file is the same: its validator, kept beside the part, goes
    back as `If-Range`, to which the server of a changed file answers with the whole of it (RFC 9110, 13.1.5).
    """
    part = archive.with_name(f"{archive.name}.part")
    validator_file = archive.with_name(f"{archive.name}.validator")
    request = urllib.request.Request(url, headers={"User-Agent": "pcm-policy"})
    if part.exists() and validator_file.exists():
        part_url, _, validator = validator_file.read_text(encoding="utf-8").partition("\n")
        if part_url == url and validator:
            request.add_header("Range", f"bytes={part.stat().st_size}-")
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and request.has_header("Range"):
            part.unlink()
            _fetch(url, archive)
            return
        raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise DownloadError(f"{url}: cannot be reached: {getattr(error, 'reason', error)}") from error
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            part.unlink(missing_ok=True)
            validator_file.write_text(f"{url}\n{_validator(response.headers)}", encoding="utf-8")
        _append(response, part, url)
    part.rename(archive)
    validator_file.unlink()


def _validator(headers: Message) -> str:
    etag = headers.get("ETag", "")
    # A weak ETag may stand for files that differ in bytes, and If-Range does not take it.
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _append(response: HTTPResponse, part: Path, url: str) -> None:
    """Writes the whole response behind what is in `part`."""
    received = part.stat().st_size if part.exists() else 0
    length = response.headers.get("Content-Length")
    total = received + int(length) if length else None
    with (
        open(part, "ab") as file,
        tqdm(
            total=total, initial=received, unit="B", unit_scale=True, desc=STORE_NAME, disable=None
        ) as progress,
    ):
        while True:
            try:
                block = response.read(BLOCK_BYTES)
            except (OSError, HTTPException) as error:
                raise DownloadError(f"{url}: the connection dropped ({error}), repeat to resume") from error
            if not block:
                break
            file.write(block)
            received += len(block)
            progress.update(len(block))
    if total is not None and received != total:
        raise DownloadError(
            f"{url}: the connection dropped after {received} of {total} bytes, repeat to resume"
        )
