"""Streams one column of a Parquet file, a batch of rows at a time.

Row groups may be of any size: pages are read through a small buffer, so that what is in memory is
the result (4 bytes a document) and one batch. A list column's lengths come from its levels, without
its values (`traces.readers.parquet_levels`); where these are stored in a rare way it is decoded, in
batches sized by the bytes a row takes. Pages that carry a checksum are checked against it, and a
trace that `traces.save` wrote is checked against its fingerprint.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from traces.columns import choose_column
from traces.errors import TraceError, shortened
from traces.readers import ReadOptions
from traces.readers.arrow_values import lengths_of
from traces.readers.parquet_levels import (
    DamagedPageError,
    Levels,
    UnsupportedColumnError,
    group_lengths,
    list_levels,
)
from traces.readers.saved import COLUMN, check_description, read_description
from traces.readers.thrift_compact import ThriftError
from traces.validation import checked_lengths, wrong_length

_BATCH_BYTES = 32 << 20
_BATCH_ROWS = 1 << 20
_BUFFER_BYTES = 1 << 20


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a Parquet file."""
    source = str(path)
    try:
        with pq.ParquetFile(
            path,
            buffer_size=_BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            about = read_description(file.schema_arrow.metadata, path)
            column = choose_column(file.schema_arrow.names, options.column, source)
            try:
                parts = _from_levels(path, file, list_levels(file, column))
                lengths = _gathered(parts, file.metadata.num_rows, source)
            except UnsupportedColumnError:
                parts = _from_values(path, file, column, options)
                lengths = _gathered(parts, file.metadata.num_rows, source)
            if about and column == COLUMN:
                check_description(about, lengths, path)
            return lengths
    except TraceError:
        raise
    except (pa.ArrowException, OSError, ValueError, ThriftError, DamagedPageError) as error:
        # ValueError: names that are not UTF-8, or negative sizes.
        raise TraceError(
            f"{source} is damaged or cut short ({shortened(error, 200)}); write or fetch it anew"
        ) from error


def _gathered(parts: Iterable[NDArray[np.int32]], rows: int, source: str) -> NDArray[np.int32]:
    """Return all parts in one array of `rows`; parts are gone as soon as they are copied."""
    try:
        lengths = np.zeros(rows, dtype=np.int32)
    except MemoryError as error:
        raise TraceError(
            f"{source}: its footer says {rows} rows, whose lengths do not fit into memory; is it "
            "damaged?"
        ) from error
    row = 0
    for part in parts:
        lengths[row : row + part.size] = part
        row += part.size
    if row != rows:
        raise TraceError(f"{source} holds {row} rows, its footer says {rows}; write it anew")
    return lengths


def _from_levels(path: Path, file: pq.ParquetFile, levels: Levels) -> Iterator[NDArray[np.int32]]:
    row = 0
    with path.open("rb") as stream:
        for group in range(file.metadata.num_row_groups):
            part = group_lengths(stream, file.metadata, group, levels)
            if part.size and part.min() < 0:
                raise wrong_length(None, str(path), row + int(np.argmax(part < 0)))
            yield checked_lengths(part, str(path), first_row=row)
            row += part.size


def _from_values(
    path: Path, file: pq.ParquetFile, column: str, options: ReadOptions
) -> Iterator[NDArray[np.int32]]:
    row = 0
    rows = _batch_rows(file.metadata, column)
    for batch in file.iter_batches(rows, columns=[column], use_threads=False):
        yield lengths_of(
            batch.column(0),
            column=column,
            source=str(path),
            first_row=row,
            text_length=options.text_length,
        )
        row += batch.num_rows


def saved_note(path: Path) -> str:
    """Return the note that `traces.save` left in a trace's file, or nothing."""
    return str(read_description(pq.read_schema(path).metadata, path).get("note", ""))


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
