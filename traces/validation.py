"""Checks every length that enters, and names the first one that is wrong.

A length is a whole number of 1 to 2**31 - 1 tokens. The check is a few vectorised passes (the
minimum, the maximum, for floating point numbers also a rounding); only when one of them fails is
the offending row looked for.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError

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
    in_range = numbers.min() >= 1 and numbers.max() <= MAX_LENGTH_TOKENS  # False for any NaN
    if in_range and (kind != "f" or (numbers == np.floor(numbers)).all()):
        return numbers.astype(np.int32, copy=False)
    bad = ~((numbers >= 1) & (numbers <= MAX_LENGTH_TOKENS))
    if kind == "f":
        bad |= numbers != np.floor(numbers)
    index = int(bad.argmax())
    raise wrong_length(numbers[index].item(), source, first_row + index, unit=unit)


def wrong_length(value: object, source: str, row: int, *, unit: str = "row") -> TraceError:
    """Return the error that names one wrong length, its row and what to do about it."""
    place = f"{source}, {unit} {row}: length "
    if value is None or value == "":
        return TraceError(f"{place}is missing; fill it in or remove the {unit}")
    shown = value if isinstance(value, int | float) else repr(str(value)[:40])
    if not isinstance(value, int | float):
        return TraceError(f"{place}{shown} is not a number; correct it or name another column")
    if value != value:  # NaN, the only value that differs from itself  # noqa: PLR0124
        return TraceError(f"{place}is NaN; fill it in or remove the {unit}")
    if value < 1:
        return TraceError(f"{place}{shown} is not positive; remove the {unit} or correct it")
    if value > MAX_LENGTH_TOKENS:
        return TraceError(
            f"{place}{shown} is above {MAX_LENGTH_TOKENS}; is the column one of lengths in tokens?"
        )
    return TraceError(f"{place}{shown} is not a whole number of tokens; round it first")
