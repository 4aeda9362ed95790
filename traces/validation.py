"""Checks every length that enters, and names the first one that is wrong.

A length is a whole number of 1 to 2**31 - 1 tokens. The check is a few vectorised passes (the
minimum, the maximum, for floating point numbers also a rounding); only when one of them fails is
the offending row looked for. Bounds are compared as Python's numbers or float64: the largest length
is none of float16's or float32's, where it would round up to one above it, or to infinity.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError, shortened

MAX_LENGTH_TOKENS = 2**31 - 1
"""The longest document: lengths are held as int32."""


def checked_lengths(
    values: NDArray[np.generic], source: str, *, first_row: int = 0, unit: str = "row"
) -> NDArray[np.int32]:
    """Return `values` as int32 lengths.

    Args:
        values: [documents] numbers of any integral or floating point type.
        source: the file or name to put before a message.
        first_row: the row of `values[0]`, as the user counts rows.
        unit: what the user counts: "row", "line", "document".

    Raises:
        TraceError: a value is not a whole number of 1 to 2**31 - 1.
    """
    kind = values.dtype.kind
    if kind not in "iuf":
        raise TraceError(
            f"{source}: lengths are of type {values.dtype}, not whole numbers; name another "
            "column, or convert them"
        )
    if values.size == 0:
        return values.astype(np.int32)
    numbers: NDArray[Any] = values
    with np.errstate(invalid="ignore"):  # a NaN is told below, in words
        in_range = numbers.min().item() >= 1 and numbers.max().item() <= MAX_LENGTH_TOKENS
        if in_range and (kind != "f" or (numbers == np.floor(numbers)).all()):
            return numbers.astype(np.int32, copy=False)
        if kind == "f" and numbers.itemsize < 8:
            numbers = numbers.astype(np.float64)
        bad = ~((numbers >= 1) & (numbers <= MAX_LENGTH_TOKENS))
        if kind == "f":
            bad |= numbers != np.floor(numbers)
    index = int(bad.argmax())
    raise wrong_length(numbers[index].item(), source, first_row + index, unit=unit)


def wrong_length(
    value: object, source: str, row: int, *, unit: str = "row", written: str | None = None
) -> TraceError:
    """Return the error that names one wrong length, its row and what to do about it.

    Args:
        value: what stands there, a number where it is one; None where nothing does.
        source: the file or name to put before the message.
        row: where, as the user counts.
        unit: what the user counts.
        written: how the number is written, where that is known.
    """
    place = f"{source}, {unit} {row}: length "
    if value is None or value == "":
        return TraceError(f"{place}is missing; fill it in or remove the {unit}")
    if not isinstance(value, int | float):
        return TraceError(
            f"{place}{shortened(value)!r} is not a number in decimal digits; correct it or name "
            "another column"
        )
    shown = shortened(value if written is None else written)
    if value != value:  # NaN, the only value that differs from itself  # noqa: PLR0124
        return TraceError(f"{place}is NaN; fill it in or remove the {unit}")
    if value <= 0:
        return TraceError(f"{place}{shown} is not positive; remove the {unit} or correct it")
    if value > MAX_LENGTH_TOKENS:
        return TraceError(
            f"{place}{shown} is above {MAX_LENGTH_TOKENS}; is the column one of lengths in tokens?"
        )
    return TraceError(f"{place}{shown} is not a whole number of tokens; round it first")
