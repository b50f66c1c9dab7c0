"""What may be in a file's place."""

from __future__ import annotations

import os
from pathlib import Path

FILE_KINDS = ("missing", "folder", "pipe", "loop", "link", "endless", "sparse")


def put_in_place(kind: str, content: bytes, path: Path) -> None:
    """Put one of `FILE_KINDS` where nothing is yet and a file of this content should be."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "link":
        path.with_name("elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(50 << 30)
