"""Lengths from the cells of a delimited file, as whole numbers in ASCII decimal digits.

A column of nothing but digits, which is nearly every one, is checked by looking at its bytes all at
once and then converted by Arrow. Arrow's own parser of integers is not asked first: it takes 0x10
for 16. Spaces around a number and a fraction of zeros are taken away in a second vectorised step,
and only what is left then is read cell by cell, exactly, to accept or to name it.

Accepted beside digits is a whole number in floating point notation, "12.0" or "1.2e1": pandas
writes integers so once a column has had a missing value, and `numpy.savetxt` always does. Digits of
other scripts, hexadecimal numbers and "1_000" are not.
"""

import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from traces.validation import MAX_LENGTH_TOKENS, checked_lengths, wrong_length

_NUMBER = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def lengths_of_cells(cells: pa.Array, source: str, first_line: int) -> NDArray[np.int32]:
    """Return the lengths that `cells` write.

    Args:
        cells: [documents] binary, null where a cell is empty.
        source: the file, for messages.
        first_line: the line of `cells[0]` in the file.

    Raises:
        TraceError: a cell holds no whole number of 1 to 2**31 - 1; it names the first such.
    """
    numbers = _from_digits(cells)
    if numbers is None:
        bare = pc.replace_substring_regex(cells, r"^[ \t]+|(\.0+)?[ \t]*$", "")
        numbers = _from_digits(bare)
    if numbers is None:
        numbers = np.zeros(len(cells), dtype=np.int64)
        for index, cell in enumerate(cells.to_pylist()):
            numbers[index] = _length(cell, source, first_line + index)
    return checked_lengths(numbers, source, first_row=first_line, unit="line")


def _from_digits(cells: pa.Array) -> NDArray[np.int64] | None:
    """Return the numbers that `cells` write in digits alone, or None where one does not."""
    if cells.null_count:
        return None
    if not len(cells):
        return np.zeros(0, dtype=np.int64)
    _, offsets, data = cells.buffers()
    bounds = np.frombuffer(offsets, np.int32)[cells.offset : cells.offset + len(cells) + 1]
    if np.diff(bounds).min() == 0:
        return None
    content = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    if not ((content - np.uint8(ord("0"))) < 10).all():
        return None
    try:
        numbers: NDArray[np.int64] = cells.view(pa.string()).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:  # beyond 64 bits
        return None
    return numbers


def _length(cell: bytes | None, source: str, line: int) -> int:
    """Return the length that one cell writes, or raise what is wrong with it."""
    text = (cell or b"").decode(errors="replace").strip(" \t")
    if _NOT_FINITE.fullmatch(text):
        raise wrong_length(float(text), source, line, unit="line")
    if not _NUMBER.fullmatch(text):
        raise wrong_length(text, source, line, unit="line")
    exact = Decimal(text)  # a float would round 2147483647.0000000001 to a length
    if not 1 <= exact <= MAX_LENGTH_TOKENS or exact != exact.to_integral_value():
        raise wrong_length(float(exact), source, line, unit="line", written=text)
    return int(exact)
