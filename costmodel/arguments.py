"""Checks what callers pass to a profile; every error names the argument and its value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import ProfileError
from costmodel.names import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

MOST_RANKS = 2**20
MOST_TOKENS = 2**40


def known(value: str, what: str, names: Iterable[str]) -> None:
    """Raise ProfileError, suggesting the nearest, unless `value` is one of `names`."""
    names = list(names)
    if value not in names:
        raise ProfileError(f"{what} {value!r} is unknown; {nearest(str(value), names)}")


def number(value: float, name: str) -> None:
    """Raise ProfileError unless `value` is a finite number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ProfileError(f"{name} is {value!r}, not a number")
    if not (math.isfinite(value) and value >= 0):
        raise ProfileError(f"{name} is {value}; it must be finite and not negative")


def whole(value: int, name: str, *, least: int, most: int = 2**31) -> int:
    """Return `value`; raises ProfileError unless it is a whole number within [least, most]."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ProfileError(f"{name} is {value!r}, not a whole number")
    if not least <= value <= most:
        raise ProfileError(f"{name} is {value}, not in {least}..{most}")
    return int(value)


def tokens(lengths: Sequence[int] | NDArray[np.integer[Any]], name: str) -> NDArray[np.int64]:
    """Return `lengths` as an array; raises ProfileError unless each is a number of tokens."""
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise ProfileError(f"{name} is not a flat list of whole numbers") from None
    if array.ndim != 1:
        raise ProfileError(f"{name} has shape {array.shape}; it must be a flat list of tokens")
    if array.size and array.dtype.kind not in "iu":
        raise ProfileError(f"{name} holds {array.tolist()[0]!r}, not whole numbers of tokens")
    wrong = np.flatnonzero((array < 0) | (array > MOST_TOKENS)) if array.size else array
    if wrong.size:
        i = int(wrong[0])
        raise ProfileError(f"{name}[{i}] is {array[i]}, not in 0..{MOST_TOKENS}")
    return array.astype(np.int64)
