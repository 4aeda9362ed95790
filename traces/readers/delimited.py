"""Reads CSV and TSV, plain or gzipped, with or without a header line.

Arrow's streaming parser gives the one column's cells a block at a time; what they write is read in
`traces.readers.decimal_numbers`. Lines end in LF, CR LF or CR, and are counted from 1 as an editor
does, as long as no cell holds a line break. A first line of nothing but numbers is data, not a
header; its columns are then called f0, f1, ...
"""

import csv
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from traces.columns import choose_column
from traces.errors import TraceError, shortened
from traces.readers import ReadOptions
from traces.readers.compression import DAMAGE, is_gzip
from traces.readers.decimal_numbers import lengths_of_cells

_BLOCK_BYTES = 64 << 20  # no line may be longer
_FIRST_LINE_BYTES = 1 << 20
# pyarrow would hand such rows to a callback, but prints a traceback where one is not UTF-8.
_WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a CSV or TSV file."""
    try:
        table = _Table(path, "\t" if options.format == "tsv" else ",")
        return table.lengths(choose_column(table.names, options.column, str(path)))
    except (pa.ArrowException, *DAMAGE) as error:
        raise TraceError(
            f"{path} is damaged or cut short ({shortened(error, 200)}); fetch it anew"
        ) from error


class _Table:
    """One delimited file: where its data begin and what its columns are called."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self._path = path
        self._delimiter = delimiter
        line, has_more = self._first()
        cells = self._cells(line)
        self._headed = not all(map(_is_number, cells))
        self.names = (
            [cell.strip() for cell in cells]
            if self._headed
            else [f"f{index}" for index in range(len(cells))]
        )
        self._header_alone = self._headed and not has_more
        self._first_line = 2 if self._headed else 1

    def _first(self) -> tuple[str, bool]:
        """Return the first line, and whether anything follows it, be it a line's end."""
        with self._open() as stream:
            head = stream.read(_FIRST_LINE_BYTES)
        line = re.split(rb"[\r\n]", head, maxsplit=1)[0]
        if len(line) == _FIRST_LINE_BYTES:
            raise TraceError(
                f"{self._path}, line 1 is longer than {_FIRST_LINE_BYTES} bytes: "
                f"{shortened(line[:200].decode(errors='replace'))!r}; a header or a length belongs "
                "there"
            )
        return line.decode("utf-8-sig", errors="replace"), len(line) < len(head)

    def _cells(self, line: str) -> list[str]:
        try:
            cells = next(csv.reader([line], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise TraceError(
                f"{self._path}, line 1 cannot be read ({error}): {shortened(line)!r}; a header or "
                "a length belongs there"
            ) from error
        if not cells:
            raise TraceError(f"{self._path}, line 1 is empty; a header or a length belongs there")
        return cells

    def _open(self) -> pa.NativeFile:
        compression = "gzip" if is_gzip(self._path) else None
        return pa.input_stream(str(self._path), compression=compression)

    def lengths(self, column: str) -> NDArray[np.int32]:
        """Return the lengths in `column`."""
        chunks: list[NDArray[np.int32]] = []
        line = self._first_line
        for cells in self._batches(column):
            chunks.append(lengths_of_cells(cells, str(self._path), line))
            line += len(cells)
        return np.concatenate(chunks) if chunks else np.zeros(0, np.int32)

    def _batches(self, column: str) -> Iterator[pa.Array]:
        if self._header_alone:
            return
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
                    ),
                    pacsv.ConvertOptions(
                        include_columns=[column],
                        column_types={column: pa.binary()},
                        null_values=[""],
                        strings_can_be_null=True,
                    ),
                ) as batches,
            ):
                for batch in batches:
                    yield batch.column(0)
        except pa.ArrowInvalid as error:
            if wrong := _WRONG_ROW.search(str(error)):
                raise self._wrong_row(*wrong.groups()) from error
            if "Empty CSV" in str(error):
                return
            raise

    def _wrong_row(self, number: str, expected: str, actual: str, text: str) -> TraceError:
        return TraceError(
            f"{self._path}, line {number} has {actual} columns, not {expected}: "
            f"{shortened(text, 60)!r}; correct it"
        )


def _is_number(cell: str) -> bool:
    """Tell whether a cell is meant as a number, be it one that is then refused as a length."""
    for read_number in (float, partial(int, base=0)):
        try:
            read_number(cell)
        except ValueError:
            continue
        return True
    return False
