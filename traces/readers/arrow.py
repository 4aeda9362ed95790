"""Reads Arrow IPC files (Feather version 2) and streams, mapped into memory.

Only the chosen column's buffers are touched. Hugging Face `datasets` writes streams, `pyarrow` and
`pandas` files; the first bytes tell which it is.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traces.columns import choose_column
from traces.errors import TraceError, shortened
from traces.readers import ReadOptions
from traces.readers.arrow_values import lengths_of

_FILE_MAGIC = b"ARROW1"


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of an Arrow IPC file or stream."""
    source = str(path)
    chunks: list[NDArray[np.int32]] = []
    row = 0
    try:
        with pa.memory_map(source) as mapped:
            is_file = mapped.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            names = _schema(mapped, is_file=is_file).names
            column = choose_column(names, options.column, source)
            for batch in _batches(mapped, names.index(column), is_file=is_file):
                part = lengths_of(
                    batch.column(0),
                    column=column,
                    source=source,
                    first_row=row,
                    text_length=options.text_length,
                )
                # A copy: the mapping ends with this function.
                chunks.append(np.array(part))
                row += part.size
    except TraceError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        # ValueError: names that are not UTF-8, or negative sizes.
        raise TraceError(
            f"{source} is damaged or cut short after row {row} ({shortened(error, 200)}); write or "
            "fetch it anew"
        ) from error
    return np.concatenate(chunks) if chunks else np.zeros(0, np.int32)


def _schema(mapped: pa.MemoryMappedFile, *, is_file: bool) -> pa.Schema:
    mapped.seek(0)
    return (pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)).schema


def _batches(mapped: pa.MemoryMappedFile, field: int, *, is_file: bool) -> Iterator[pa.RecordBatch]:
    options = pa.ipc.IpcReadOptions(included_fields=[field], use_threads=False)
    mapped.seek(0)
    if not is_file:
        yield from pa.ipc.open_stream(mapped, options=options)
        return
    reader = pa.ipc.open_file(mapped, options=options)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)
