"""Reproducible randomness: splitmix64 hashes of (seed, index).

A library's generator may change its stream between releases; these hashes are integer arithmetic
that never will. splitmix64's finaliser is a bijection of 64-bit words and the stride between the
indices' states is odd, so within one seed no two rows have the same hash: the order below has no
ties, and every sorting algorithm gives the same one.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014).
"""

import math

import numpy as np
from numpy.typing import NDArray

_STRIDE = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, odd
_MASK = 2**64 - 1
_SLICE = 1 << 20  # rows hashed at a time where only few are kept


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply splitmix64's finaliser to every word, in place."""
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def hashes(seed: int, count: int, *, stream: int = 0, start: int = 0) -> NDArray[np.uint64]:
    """Return [count] uint64 hashes of (seed, index), all different.

    Args:
        seed: any whole number; taken modulo 2**64.
        count: how many indices.
        stream: a second number that sets draws of different meaning apart.
        start: the first index.
    """
    origin = np.array([(seed + stream * 0xD1342543DE82EF95) & _MASK], dtype=np.uint64)
    origin = _mix(origin + np.uint64(_STRIDE))
    states = np.arange(start + 1, start + count + 1, dtype=np.uint64)
    states *= np.uint64(_STRIDE)
    states += origin
    return _mix(states)


def uniforms(seed: int, count: int, *, stream: int = 0, start: int = 0) -> NDArray[np.float64]:
    """Return [count] float64 in the open interval (0, 1): 52 bits of each hash and a half.

    The arguments are those of `hashes`.
    """
    bits = hashes(seed, count, stream=stream, start=start) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0**-52


def shuffled_rows(
    documents: int, seed: int | None, *, stream: int = 0, first: int | None = None
) -> NDArray[np.int64]:
    """Return the rows ordered by their hash, or 0, 1, ... where there is no seed.

    Args:
        documents: how many rows there are.
        seed: None keeps their order.
        stream: as for `hashes`.
        first: return only so many, the first of the order, without sorting the rest.

    Returns:
        [documents or first] int64 rows.
    """
    count = documents if first is None else min(first, documents)
    if seed is None:
        return np.arange(count, dtype=np.int64)
    if count == documents:
        return np.argsort(hashes(seed, documents, stream=stream)).astype(np.int64, copy=False)
    # Hashes are uniform: the smallest `count` lie below about count / documents of their range.
    share = min(1.0, (count + 6 * math.sqrt(count) + 6) / documents)
    bound = np.uint64(min(int(share * 2.0**64), _MASK))
    kept_rows, kept_hashes = [], []
    for start in range(0, documents, _SLICE):
        part = hashes(seed, min(_SLICE, documents - start), stream=stream, start=start)
        below = np.flatnonzero(part <= bound)
        kept_rows.append(below + start)
        kept_hashes.append(part[below])
    rows = np.concatenate(kept_rows)
    if rows.size < count:  # six standard deviations off: all but impossible, yet it must be right
        return shuffled_rows(documents, seed, stream=stream)[:count]
    return rows[np.argsort(np.concatenate(kept_hashes))[:count]].astype(np.int64, copy=False)
