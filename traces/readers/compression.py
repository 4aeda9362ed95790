"""Gzip, told by its first two bytes rather than by a name."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

GZIP_MAGIC = b"\x1f\x8b"
DAMAGE = (OSError, EOFError, zlib.error)
"""What reading a damaged or truncated gzip stream raises."""


def is_gzip(path: Path) -> bool:
    """Tell whether the file begins as gzip files do."""
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


def open_plain(path: Path) -> BinaryIO:
    """Open the file for reading, through gzip if it is compressed."""
    return cast("BinaryIO", gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")
