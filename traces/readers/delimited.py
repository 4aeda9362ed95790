"""Reads CSV and TSV, plain or gzipped, with or without a header line.

Arrow's streaming parser converts the one column to int64 a block at a time. Only if it fails does a
second pass read the column as strings, to accept what is whole in another notation ("1e3", "12.0")
and to name the line of what is not. Lines are counted from 1 as an editor does, as long as no cell
holds a line break. A first line of nothing but numbers is data, not a header; its columns are then
called f0, f1, ...
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from traces.columns import choose_column
from traces.errors import TraceError
from traces.readers import ReadOptions
from traces.readers.compression import DAMAGE, is_gzip
from traces.validation import checked_lengths, wrong_length

_BLOCK_BYTES = 64 << 20  # no line may be longer


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a CSV or TSV file."""
    try:
        table = _Table(path, "\t" if options.format == "tsv" else ",")
        column = choose_column(table.names, options.column, str(path))
        try:
            return table.lengths(column, pa.int64())
        except pa.ArrowInvalid:
            return table.lengths(column, pa.string())
    except (pa.ArrowException, *DAMAGE) as error:
        raise TraceError(f"{path} is damaged or cut short ({error}); fetch it anew") from error


class _Table:
    """One delimited file: where its data begin and what its columns are called."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path = path
        self._delimiter = delimiter
        self._bad_row: tuple[int | None, int, int, str] | None = None
        with self._open() as stream:
            head = stream.read(1 << 20)
        line = head.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
        cells = next(csv.reader(io.StringIO(line), delimiter=delimiter), [])
        if not cells:
            raise TraceError(f"{path}, line 1 is empty; a header or a length belongs there")
        self._headed = not all(map(_is_number, cells))
        self.names = (
            [cell.strip() for cell in cells]
            if self._headed
            else [f"f{index}" for index in range(len(cells))]
        )
        self._first_line = 2 if self._headed else 1

    def _open(self) -> pa.NativeFile:
        compression = "gzip" if is_gzip(self._path) else None
        return pa.input_stream(str(self._path), compression=compression)

    def _note_bad_row(self, row: pacsv.InvalidRow) -> str:
        self._bad_row = (row.number, row.expected_columns, row.actual_columns, row.text)
        return "error"

    def lengths(self, column: str, kind: pa.DataType) -> NDArray[np.int32]:
        """Return the lengths in `column`, read as `kind`."""
        chunks: list[NDArray[np.int32]] = []
        line = self._first_line
        for values in self._batches(column, kind):
            chunks.append(_converted(values, str(self._path), line))
            line += len(values)
        return np.concatenate(chunks) if chunks else np.zeros(0, np.int32)

    def _batches(self, column: str, kind: pa.DataType) -> Iterator[pa.Array]:
        try:
            with (
                self._open() as stream,
                pacsv.open_csv(
                    stream,
                    pacsv.ReadOptions(
                        use_threads=False,
                        block_size=_BLOCK_BYTES,
                        column_names=self.names,
                        skip_rows=1 if self._headed else 0,
                    ),
                    pacsv.ParseOptions(
                        delimiter=self._delimiter,
                        newlines_in_values=True,
                        ignore_empty_lines=False,
                        invalid_row_handler=self._note_bad_row,
                    ),
                    pacsv.ConvertOptions(
                        include_columns=[column],
                        column_types={column: kind},
                        null_values=[""],
                        strings_can_be_null=True,
                    ),
                ) as batches,
            ):
                for batch in batches:
                    yield batch.column(0)
        except pa.ArrowInvalid as error:
            if self._bad_row is not None:
                raise self._wrong_row() from error
            if "Empty CSV" in str(error):
                return
            raise

    def _wrong_row(self) -> TraceError:
        number, expected, actual, text = self._bad_row or (None, 0, 0, "")
        line = "a line" if number is None else f"line {number}"
        return TraceError(
            f"{self._path}, {line} has {actual} columns, not {expected}: {text[:60]!r}; correct it"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _converted(values: pa.Array, source: str, first_line: int) -> NDArray[np.int32]:
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        values_before = values.slice(0, missing)
        _converted(values_before, source, first_line)  # an earlier wrong value comes first
        raise wrong_length(None, source, first_line + missing, unit="line")
    if pa.types.is_integer(values.type):
        return checked_lengths(values.to_numpy(), source, first_row=first_line, unit="line")
    numbers = np.zeros(len(values), dtype=np.float64)
    for index, cell in enumerate(values.to_pylist()):
        try:
            numbers[index] = float(cell)
        except ValueError as error:
            raise wrong_length(cell, source, first_line + index, unit="line") from error
    return checked_lengths(numbers, source, first_row=first_line, unit="line")
