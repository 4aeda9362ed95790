"""Reads JSON Lines, plain or gzipped: an object a line, one field of it a length, ids or text.

The field is chosen on the first line and read on every line: a number is a length, a list counts
its items, a text is counted by the tokenizer. Blank lines are skipped. Every line is parsed whole;
a large corpus belongs into Parquet (`flashcp trace make`).
"""

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces.columns import choose_column, needs_tokenizer
from traces.errors import TraceError, quoted, shortened, suggestion
from traces.readers import ReadOptions
from traces.readers.compression import DAMAGE, open_plain
from traces.validation import MAX_LENGTH_TOKENS, wrong_length


def read(path: Path, options: ReadOptions) -> NDArray[np.int32]:
    """Read the lengths of a JSON Lines file."""
    source = str(path)
    lengths = array("i")
    column: str | None = None
    number = 0
    try:
        with open_plain(path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.isspace():
                    continue
                row = _object(line, source, number)
                if column is None:
                    column = choose_column(list(row), options.column, f"{source}, line {number}")
                if column not in row:
                    raise TraceError(
                        f"{source}, line {number}: no field {shortened(column)!r}"
                        f"{suggestion(column, row)} (there are {quoted(row)}); fill it in or "
                        "remove the line"
                    )
                lengths.append(_length(row[column], column, source, number, options))
    except DAMAGE as error:
        raise TraceError(
            f"{source}, after line {number}: damaged or cut short ({error}); fetch it anew"
        ) from error
    return np.frombuffer(lengths, dtype=np.int32).copy() if lengths else np.zeros(0, np.int32)


def _object(line: bytes, source: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise TraceError(
            f"{source}, line {number} is nested too deep: {_shown(line)!r}; correct it"
        ) from error
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise TraceError(
                f"{source}, line {number} holds a number of more digits than Python reads: "
                f"{_shown(line)!r}; correct it"
            ) from error
        raise TraceError(
            f"{source}, line {number} is not JSON ({error}): {_shown(line)!r}; correct it, or "
            "the file was cut short there"
        ) from error
    if not isinstance(row, dict):
        raise TraceError(
            f'{source}, line {number}: {_shown(line)!r} is not an object; write {{"length": 123}}'
        )
    return row


def _shown(line: bytes) -> str:
    """Return the start of a line, which may be cut inside a character or be no text at all."""
    return shortened(line[:200].decode(errors="replace").strip())


def _length(value: Any, column: str, source: str, number: int, options: ReadOptions) -> int:
    if isinstance(value, list):
        value = len(value)
    elif isinstance(value, str):
        if options.text_length is None:
            if _looks_like_number(value):
                raise wrong_length(value, source, number, unit="line")
            raise needs_tokenizer(f"{source}, line {number}", column)
        value = options.text_length(value)
    elif isinstance(value, bool | dict):
        shown = "{...}" if isinstance(value, dict) else json.dumps(value)
        raise wrong_length(shown, source, number, unit="line")
    if value is None or not 1 <= value <= MAX_LENGTH_TOKENS or value != int(value):
        raise wrong_length(value, source, number, unit="line")
    return int(value)


def _looks_like_number(value: str) -> bool:
    return len(value) < 24 and value.strip().lstrip("+-").replace(".", "", 1).isdigit()
