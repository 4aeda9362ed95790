"""The readers: a module for each file format, each with one `read(path, options)`.

Every reader returns the lengths of a file's documents as [documents] int32, all checked, and raises
`TraceError` naming the file, the row (or line, or byte) and the value that is wrong. None reads
tokens where lengths can be had without.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from traces.columns import TextLength

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS = {
    "csv": "traces.readers.delimited",
    "tsv": "traces.readers.delimited",
    "jsonl": "traces.readers.jsonl",
    "parquet": "traces.readers.parquet",
    "arrow": "traces.readers.arrow",
    "npy": "traces.readers.npy",
    "idx": "traces.readers.megatron",
}
"""Format name to the module that reads it."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a reader may be told.

    Attributes:
        format: the format's name, for readers of several.
        column: the column or field of lengths, token ids or text; None finds it.
        text_length: tokens of a text, where the column holds text.
    """

    format: str
    column: str | None = None
    text_length: TextLength | None = None


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read `path` with the reader of `options.format`."""
    module = import_module(FORMATS[options.format])
    reader: Callable[[Path, ReadOptions], NDArray[np.int32]] = module.read
    return reader(path, options)
