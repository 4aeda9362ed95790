"""Reads NumPy `.npy` arrays of lengths, mapped into memory."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError
from traces.readers import ReadOptions
from traces.validation import checked_lengths


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a one-dimensional `.npy` array."""
    if options.column is not None:
        raise TraceError(f"{path}: an .npy array has no columns; leave --column out")
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise TraceError(
            f"{path} is damaged, cut short or holds objects ({error}); save it anew"
        ) from error
    if mapped.ndim != 1:
        shape = "x".join(map(str, mapped.shape)) or "a single number"
        raise TraceError(f"{path} is {shape}, not one-dimensional; save one length a document")
    return np.array(checked_lengths(mapped, str(path)))
