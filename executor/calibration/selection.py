"""Chooses which attention calls to measure: few, each telling something that the others do not.

A grid of lengths, batches, heads and prefixes has thousands of calls; a model of tiles has a dozen
coefficients. So calls are spread over the space by a Halton sequence, evenly in the logarithm of
the work and of the lengths, and go round four kinds: equal lengths, shards behind prefixes,
mixed lengths, and shards as plans have them (mixed, some behind prefixes). Any first part of the
list covers the whole space, so a calibration may stop when its time is up. On the bundled tables
24 random calls reach the accuracy of a thousand within 1.5 points (benchmarks/calibration).

Kernels for GPUs start blocks for the longest segment in every segment. What those cost that find
nothing to do, the four kinds tell poorly: they are at most 15% of a call's time. On a GPU every
sixth call is of a fifth kind, one long segment beside many short ones, where they are up to 47%
(invented times, benchmarks/calibration/empty_blocks.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

HEADS = ((32, 8), (8, 8), (16, 2), (32, 32), (8, 1), (16, 4), (4, 4), (64, 8), (8, 2), (16, 16))
MOST_SEGMENTS = 48
LOPSIDED_EVERY = 6
SHORT_SEGMENTS = (40, 200)
"""Least and most segments beside the long one of a lopsided call."""
_BASES = (2, 3, 5, 7, 11)
_LEAST_TOKENS = 32
_MOST_SHORT = 256


@dataclass(frozen=True)
class Call:
    """A call to measure: query and key tokens of each segment, heads and head size."""

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    q_heads: int
    kv_heads: int
    head_dim: int

    @property
    def pairs(self) -> int:
        """Query-key pairs over all query heads."""
        lens = zip(self.q_lens, self.k_lens, strict=True)
        return self.q_heads * sum(q * (2 * k - q + 1) // 2 for q, k in lens)

    def tensor_bytes(self, element_bytes: int = 2) -> int:
        """Return the bytes of queries, keys, values, output and all their gradients."""
        heads = 4 * self.q_heads * sum(self.q_lens) + 4 * self.kv_heads * sum(self.k_lens)
        return heads * self.head_dim * element_bytes


def choose(
    count: int, head_dim: int, most_pairs: float, most_bytes: float, *, lopsided: bool = False
) -> list[Call]:
    """Return `count` calls of one head size, the most telling first.

    Args:
        count: how many.
        head_dim: head size.
        most_pairs: query-key pairs over all heads of the largest call.
        most_bytes: what its tensors may take.
        lopsided: whether every sixth is one long segment beside many short ones.

    Returns:
        Distinct calls; fewer where `most_bytes` allows fewer.
    """
    others = count // LOPSIDED_EVERY if lopsided else 0
    calls = _distinct(_call, count - others, head_dim, most_pairs, most_bytes)
    # Indices of their own: a Halton sequence of which every sixth is taken covers half its range.
    for i, call in enumerate(_distinct(_lopsided, others, head_dim, most_pairs, most_bytes)):
        calls.insert((i + 1) * LOPSIDED_EVERY - 1, call)
    return calls


def _distinct(
    make: Callable[[int, int, float], Call],
    count: int,
    head_dim: int,
    most_pairs: float,
    most_bytes: float,
) -> list[Call]:
    calls: dict[Call, None] = {}
    index = 1
    while len(calls) < count and index <= 8 * count:
        call = make(index, head_dim, most_pairs)
        if call.tensor_bytes() <= most_bytes:
            calls[call] = None
        index += 1
    return list(calls)


def _call(index: int, head_dim: int, most_pairs: float) -> Call:
    u = [_halton(index, base) for base in _BASES]
    q_heads, kv_heads = HEADS[int(u[1] * len(HEADS))]
    # Evenly in the logarithm, over two orders of magnitude up to the largest.
    pairs = most_pairs * 10 ** (-2.0 * u[0]) / q_heads
    longest = max(_LEAST_TOKENS + 1.0, (2 * pairs) ** 0.5)
    kind = index % 4
    if kind == 0:
        length = _between(_LEAST_TOKENS, longest, u[2])
        lens = [length] * _clamp(pairs / (length * (length + 1) / 2), 1, MOST_SEGMENTS)
        return Call(tuple(lens), tuple(lens), q_heads, kv_heads, head_dim)
    if kind == 1:
        # One to three shards: a short call of one segment alone finds everything where the last
        # one left it, which no plan's call does.
        shards = 1 + index // 4 % 3
        queries = _between(_LEAST_TOKENS, longest / shards**0.5, u[2])
        many = [max(queries * (shards - i) // shards, _LEAST_TOKENS // 2) for i in range(shards)]
        prefix = _clamp(pairs / sum(many) - queries / 2, queries // 8 + 1, 16 * longest)
        keys = [q + prefix * (i + 1) // shards for i, q in enumerate(many)]
        return Call(tuple(many), tuple(keys), q_heads, kv_heads, head_dim)
    queries_of, keys_of, left = [], [], pairs
    for segment in range(1, MOST_SEGMENTS + 1):
        a, b = _halton(97 * index + segment, 2), _halton(97 * index + segment, 3)
        queries = _between(_LEAST_TOKENS // 2, min(longest, max(left, 1.0) ** 0.5 * 1.4), a)
        prefix = 0
        if kind == 3 and b < 0.4:
            prefix = _between(_LEAST_TOKENS, longest, b / 0.4)
        queries_of.append(queries)
        keys_of.append(queries + prefix)
        left -= queries * (prefix + (queries + 1) / 2)
        if left < _LEAST_TOKENS**2:
            break
    return Call(tuple(queries_of), tuple(keys_of), q_heads, kv_heads, head_dim)


def _lopsided(index: int, head_dim: int, most_pairs: float) -> Call:
    u = [_halton(index, base) for base in _BASES]
    q_heads, kv_heads = HEADS[int(u[1] * len(HEADS))]
    # Empty blocks go with the long segment's length, its own work with the square: from a tenth of
    # the largest work down they are the larger share, and such calls are over sooner.
    pairs = most_pairs * 10 ** (-1.0 - u[0]) / q_heads
    longest = max(_LEAST_TOKENS + 1.0, (2 * pairs) ** 0.5)
    many = _between(*SHORT_SEGMENTS, u[2])
    short = _between(_LEAST_TOKENS // 2, min(_MOST_SHORT, longest / 4), u[3])
    lens = [short] * many
    lens.insert(int(u[4] * (many + 1)), round(longest))
    return Call(tuple(lens), tuple(lens), q_heads, kv_heads, head_dim)


def _between(least: float, most: float, u: float) -> int:
    """Return the whole number at share `u` of the logarithms between two."""
    most = max(most, least + 1)
    return round(float(least * (most / least) ** u))


def _clamp(value: float, least: float, most: float) -> int:
    return round(min(max(value, least), max(most, least)))


def _halton(index: int, base: int) -> float:
    """Return the digits of `index` in `base`, mirrored at the point; in [0, 1)."""
    result, share = 0.0, 1.0
    while index > 0:
        share /= base
        result += share * (index % base)
        index //= base
    return result
