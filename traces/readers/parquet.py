"""Streams one column of a Parquet file, a batch of rows at a time.

Row groups may be of any size: pages are read through a small buffer, so that what is in memory is
the result (4 bytes a document) and one batch. A list column has to be decoded to know its lengths;
its batches are sized by the bytes a row takes.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from traces.columns import choose_column
from traces.errors import TraceError
from traces.readers import ReadOptions
from traces.readers.arrow_values import lengths_of

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1 << 20
_BUFFER_BYTES = 1 << 20


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a Parquet file."""
    source = str(path)
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            column = choose_column(file.schema_arrow.names, options.column, source)
            lengths = np.zeros(file.metadata.num_rows, dtype=np.int32)
            row = 0
            rows = _batch_rows(file.metadata, column)
            for batch in file.iter_batches(rows, columns=[column], use_threads=False):
                part = lengths_of(
                    batch.column(0),
                    column=column,
                    source=source,
                    first_row=row,
                    text_length=options.text_length,
                )
                lengths[row : row + part.size] = part
                row += part.size
    except (pa.ArrowException, OSError) as error:
        raise TraceError(
            f"{source} is damaged or cut short ({error}); write or fetch it anew"
        ) from error
    if row != lengths.size:
        raise TraceError(
            f"{source} holds {row} rows, its footer says {lengths.size}; write it anew"
        )
    return lengths


def saved_note(path: Path) -> str:
    """Return the note that `traces.save` left in a trace's file, or nothing."""
    metadata = pq.read_schema(path).metadata or {}
    try:
        about = json.loads(metadata.get(b"flashcp", b"{}"))
    except ValueError:
        return ""
    return str(about.get("note", "")) if isinstance(about, dict) else ""


def _batch_rows(metadata: pq.FileMetaData, column: str) -> int:
    """Return how many rows of `column` take about `_BATCH_BYTES` when decoded."""
    if metadata.num_rows == 0:
        return 1
    total_bytes = 0
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for index in range(columns.num_columns):
            chunk = columns.column(index)
            if chunk.path_in_schema.split(".")[0] == column:
                # Dictionary-coded values grow when decoded: count at least 4 bytes each.
                total_bytes += max(chunk.total_uncompressed_size, 4 * chunk.num_values)
    bytes_a_row = max(1, total_bytes // int(metadata.num_rows))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // bytes_a_row))
