"""`pcm-download-demonstrations`: fetches the published PushT demonstrations and verifies them.

The archive is the one published with Diffusion Policy (Chi et al., RSS 2023; MIT licence). The store appears under its
name only once it is complete and verified. A download is not resumed, but the archive is only 30 MB. The arrays are
verified, not the archive, so that a mirror may pack it differently. Until they are, nothing in it is trusted: sizes and
names are checked before it is unpacked, and codecs before the arrays are decoded.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from training.command import run_command
from training.data.array_hash import array_sha256
from training.data.bounded_download import DownloadError, check_scheme, fetch
from training.data.bounded_zip import check_names, check_unpackable, open_zip
from training.data.store_arrays import EPISODE_ENDS, as_episode_ends, as_finite_float32, read_store
from training.data.store_files import StoreError, folder_store, open_group
from training.output_dir import Outputs, locked_output_dir

PUBLISHED_URL = "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip"
STORE_NAME = "pusht_cchi_v7_replay.zarr"
TEMPORARY_PREFIX = ".download-"
OUTPUTS = Outputs("pcm-download-demonstrations", (STORE_NAME,), lambda path: path.name == STORE_NAME)
# `array_sha256` of the published arrays. The archive's images are not covered: nothing here reads them.
PUBLISHED_SHA256: Mapping[str, str] = {
    "data/state": "d67c8c6def3bb2d9661a69910ba9423abea4efa57f2c1ecb24d7f2bdd315dd8e",
    "data/action": "fadfafe07c8af64faa08fded2fb0575672b3acf249122bd9c3cd97f16e569993",
    "data/keypoint": "d1760465021e02cfc587a4d7b623449861d9c92b42cb1d18e14f6c8e42e3b569",
    "meta/episode_ends": "d4f698dd21760ad0e4ece8c13cea3d44aa632289a52dfb6ae25923d75e98752e",
}
# The published archive has 30 MB, of some 800 members. A mirror may pack it differently.
MOST_ARCHIVE_BYTES = 256 << 20
MOST_UNPACKED_BYTES = 1 << 30


class _WrongContent(Exception):
    """Fetched or existing data that are not the published demonstrations."""


@dataclass(frozen=True)
class DownloadConfig:
    """Arguments of `pcm-download-demonstrations`, explained in `conf/download_demonstrations.yaml`."""

    output_dir: str
    url: str = PUBLISHED_URL
    allow_http: bool = False

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir must name a folder")
        check_scheme(self.url, allow_http=self.allow_http)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("download_demonstrations", DownloadConfig, _download_and_say, argv=argv)


def download_demonstrations(config: DownloadConfig) -> Path:
    """`download` with the arguments of the command."""
    return download(config.url, config.output_dir, allow_http=config.allow_http)


def download(
    url: str,
    output_dir: str | Path,
    expected_sha256: Mapping[str, str] = PUBLISHED_SHA256,
    *,
    allow_http: bool = False,
) -> Path:
    """Fetches, unpacks and verifies the archive at `url`, unless its store is in `output_dir` already.

    Returns:
        The store's path, `<output_dir>/pusht_cchi_v7_replay.zarr`.

    Raises:
        DownloadError: if the server cannot be reached or refuses, the connection drops, the archive is damaged, too
            large or holds anything else, or the disk is full. Also if a store with other values is there; it is left
            alone.
        ValueError: for a URL that is not https, unless `allow_http`.
        RuntimeError: if another process downloads into `output_dir`.
    """
    output_dir = Path(output_dir)
    store = output_dir / STORE_NAME
    if store.exists():
        try:
            _verify(store, expected_sha256)
        except _WrongContent as error:
            raise DownloadError(f"{store}: {error}; move it away to download the published one") from error
        return store
    check_scheme(url, allow_http=allow_http)
    try:
        # Beside other things: what is in the folder is nobody's business but the lock's.
        with (
            locked_output_dir(output_dir, OUTPUTS, overwrite=True),
            _temporary_folder(output_dir) as folder,
        ):
            archive = Path(folder) / "archive.zip"
            fetch(url, archive, most_bytes=MOST_ARCHIVE_BYTES, allow_http=allow_http)
            unpacked = _unpack(archive, Path(folder) / "unpacked")
            _verify(unpacked, expected_sha256)
            # So that nobody needs to say how it is read.
            open_group(folder_store(unpacked, read_only=False), mode="r+").attrs["task"] = "pusht"
            unpacked.rename(store)
    except _WrongContent as error:
        raise DownloadError(f"{url}: wrong archive, discarded: {error}") from error
    except OSError as error:
        raise DownloadError(f"{output_dir}: {error}") from error
    return store


def _download_and_say(config: DownloadConfig) -> None:
    was_there = (Path(config.output_dir) / STORE_NAME).exists()
    store = download_demonstrations(config)
    print(f"{store}: {'already there' if was_there else 'downloaded'}, verified")


@contextmanager
def _temporary_folder(output_dir: Path) -> Iterator[str]:
    """A folder of its own, and none that killed downloads left. No other download may be running in `output_dir`."""
    for leftover in output_dir.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with TemporaryDirectory(dir=output_dir, prefix=TEMPORARY_PREFIX) as folder:
        yield folder


def _verify(store: Path, expected_sha256: Mapping[str, str]) -> None:
    """Raise _WrongContent for arrays with other values than the published ones."""
    try:
        read = read_store(store, lambda attributes: dict.fromkeys(expected_sha256)).arrays
        ends = as_episode_ends(store, read[EPISODE_ENDS], len(read["data/state"]))
        arrays = {
            name: ends if name == EPISODE_ENDS else as_finite_float32(store, name, values)
            for name, values in read.items()
        }
    except StoreError as error:
        raise _WrongContent(str(error).removeprefix(f"{store}: ")) from error
    differing = [name for name, values in arrays.items() if array_sha256(values) != expected_sha256[name]]
    if differing:
        raise _WrongContent(f"not the published demonstrations, {' and '.join(differing)} differ")


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpacks the archive's store into `folder`, and nothing else that is in it. Returns the store's path."""
    try:
        with open_zip(archive) as opened:
            check_names(opened.filelist)
            root = _store_in(opened)
            members = [member for member in opened.filelist if member.filename.startswith(f"{root}/")]
            check_unpackable(members, most_bytes=MOST_UNPACKED_BYTES)
            opened.extractall(folder, members)
    # RuntimeError is what zipfile raises for what it does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _WrongContent(f"it is damaged or not a zip file: {error}") from error
    return folder / root


def _store_in(opened: zipfile.ZipFile) -> str:
    """Folder of the store in an archive.

    Found by its metadata: a zip file made on macOS has a second folder of that name, with attributes only.
    """
    parents = {
        str(path.parent)
        for path in map(PurePosixPath, opened.namelist())
        if path.parent.name == STORE_NAME and path.name in (".zgroup", "zarr.json")
    }
    if len(parents) != 1:
        count = f"{len(parents)} zarr stores" if parents else "no zarr store"
        raise _WrongContent(f"it has {count} {STORE_NAME}")
    return parents.pop()
