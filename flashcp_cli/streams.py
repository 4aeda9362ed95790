"""Makes sure that whatever is printed can be: closed streams and narrow encodings included."""

import io
import os
import sys
from typing import IO


def prepare_streams() -> None:
    """Replace closed standard streams, and let narrow encodings replace what they lack."""
    if sys.stdout is None:  # started with >&-
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="replace")


def _nowhere() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - lives as long as we do
