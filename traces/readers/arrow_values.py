"""Lengths from one Arrow array, whatever it holds: shared by the Parquet and Arrow readers.

A list array's lengths are the differences of its offsets; its values are not touched, and where the
file is mapped, not even read from disk.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from traces.columns import TextLength, needs_tokenizer
from traces.errors import TraceError
from traces.validation import checked_lengths, wrong_length


def is_list(kind: pa.DataType) -> bool:
    """Tell whether values of this type are lists with offsets, or lists of one fixed size."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def lengths_of(
    values: pa.Array, *, column: str, source: str, first_row: int, text_length: TextLength | None
) -> NDArray[np.int32]:
    """Return the lengths that `values` hold, are the lists of, or are the texts of.

    Args:
        values: [documents] numbers, lists or texts.
        column: its name, for messages.
        source: the file, for messages.
        first_row: the row of `values[0]` in the file.
        text_length: tokens of a text.

    Raises:
        TraceError: the type is another, or a value is missing or not a length.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if values.null_count:
        missing = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise wrong_length(None, source, first_row + missing)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = values.to_numpy(zero_copy_only=False)
    elif is_list(kind):
        numbers = _list_lengths(values)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        if text_length is None:
            raise needs_tokenizer(source, column)
        numbers = np.array([text_length(text) for text in values.to_pylist()], dtype=np.int64)
    else:
        raise TraceError(
            f"{source}: column {column!r} is of type {kind}, neither lengths nor token ids; name "
            "another with --column"
        )
    return checked_lengths(numbers, source, first_row=first_row)


def _list_lengths(values: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_fixed_size_list(values.type):
        return np.full(len(values), values.type.list_size, dtype=np.int64)
    offsets: NDArray[np.int64] = values.offsets.to_numpy().astype(np.int64, copy=False)
    return np.diff(offsets)
