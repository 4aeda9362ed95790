"""Reads NumPy `.npy` arrays of lengths, mapped into memory.

The header is parsed by NumPy and then checked against the file's size here, before anything is
mapped: `numpy.load` would compute a damaged shape's size with overflow, and warn.
"""

import math
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from traces.errors import TraceError, shortened
from traces.readers import ReadOptions
from traces.validation import checked_lengths


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a one-dimensional `.npy` array."""
    if options.column is not None:
        raise TraceError(f"{path}: an .npy array has no columns; leave --column out")
    with path.open("rb") as stream:
        shape, kind = _header(stream, path)
        start = stream.tell()
    if len(shape) != 1:
        shown = "x".join(map(str, shape)) or "a single number"
        raise TraceError(
            f"{path} is {shortened(shown)}, not one-dimensional; save one length a document"
        )
    if kind.hasobject or kind.itemsize == 0:
        return checked_lengths(np.zeros(0, kind), str(path))  # which refuses the type
    need = start + math.prod(shape) * kind.itemsize
    size = path.stat().st_size
    if shape[0] < 0 or size < need:
        raise TraceError(
            f"{path} is damaged or cut short at byte {size}: {shortened(shape[0])} numbers of type "
            f"{kind} take {shortened(need)}; save it anew"
        )
    if shape[0] == 0:
        return np.zeros(0, np.int32)
    mapped: NDArray[Any] = np.memmap(path, dtype=kind, mode="r", offset=start, shape=shape)
    return np.array(checked_lengths(mapped, str(path)))


def _header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the array's shape and type, and leave `stream` where its numbers begin."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of what a damaged header holds
            major, _ = npy_format.read_magic(stream)
            read_header = (
                npy_format.read_array_header_1_0 if major == 1 else npy_format.read_array_header_2_0
            )
            shape, _, kind = read_header(stream)
    except Exception as error:  # the header is a Python literal: its parser raises many kinds
        raise TraceError(
            f"{path} has a damaged header, or is cut short within it ({shortened(error, 80)}); "
            "save it anew"
        ) from error
    return shape, kind
