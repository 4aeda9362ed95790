"""What `traces.save` writes of a trace into its file's metadata, and whether its rows still fit it.

A Parquet file whose pages carry no checksum, or whose rows another program has changed, reads
without an error and gives other lengths. The fingerprint tells.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError, shortened
from traces.trace import Trace, fingerprint_of

KEY = b"flashcp"
"""The metadata's key, of plans' files as well."""

COLUMN = "length"
_FORMAT = "flashcp-trace"
_VERSION = 1


def description(trace: Trace) -> dict[str, Any]:
    """Return what to write of `trace`."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "name": trace.name,
        "note": trace.note,
        "documents": trace.documents,
        "tokens": trace.tokens,
        "fingerprint": trace.fingerprint,
    }


def read_description(metadata: dict[bytes, bytes] | None, path: Path) -> dict[str, Any]:
    """Return what was written of the trace at `path`; nothing of another program's file.

    Raises:
        TraceError: the file holds plans, or a later version's trace.
    """
    try:
        about = json.loads((metadata or {}).get(KEY, b"{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(about, dict) or not about:
        return {}
    if about.get("format") != _FORMAT:
        raise TraceError(f"{path} is a flashcp plan, not a trace; give the plan's trace")
    if about.get("version") != _VERSION:
        raise TraceError(
            f"{path} is of version {shortened(about.get('version'))}; this flashcp reads version "
            f"{_VERSION}: update it, or write the trace with this one"
        )
    return about


def check_description(about: dict[str, Any], lengths: NDArray[np.int32], path: Path) -> None:
    """Compare the lengths read with what was written of them.

    Raises:
        TraceError: they differ.
    """
    name, found = "documents", str(lengths.size)
    if str(about.get(name)) == found:
        name, found = "fingerprint", fingerprint_of(lengths)
    told = str(about.get(name))
    if told != found:
        raise TraceError(
            f"{path} is damaged: its metadata say {name} {shortened(told)}, its rows give "
            f"{shortened(found)}; fetch or write it anew (if another program changed its rows, let "
            f"it remove the metadata {KEY.decode()!r})"
        )
