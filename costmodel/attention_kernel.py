"""Predicts the time of one varlen attention kernel call from its segments, in compiled code.

A segment is `q_len` query tokens that attend to `k_len` key tokens of one document, right-aligned
under the causal mask (a shard of `q_len` tokens whose prefix is `k_len - q_len`). The kernel cuts
the queries into tiles (with all query heads of a KV head packed into one tile where the kernel
packs GQA heads) and walks each query tile over its key tiles. Per segment, in closed form:

    query tiles, key tiles walked, query tokens, 1; key tiles of the longest query tile, query tiles

These are whole numbers below 2^53, so sums over segments are exact in float64 and do not depend on
the order of the segments; a search may add and remove segments one at a time. The call's time is

    empty    = segments * tiles of the segment that has most - tiles of all
    work     = (kv_tile_us * key tiles walked + empty_tile_us * empty) / SMs
    critical = kv_tile_us * longest, shortened where the kernel splits keys over idle SMs
    attend   = max(work + tail * critical, critical_scale * critical)
    busy     = attend + query_tile_us * ceil(query tiles / SMs)
               + query_row_us * query rows / (SMs * rows of a tile)
               + what Q and O cost beyond the L2 cache
    time     = launch_us + busy + throttle * max(0, busy - throttle_after_us)
               + KV-cache write of the measuring engine

On a CPU (`BLOCKED`) torch's kernel is one operator a segment, or two where it has a prefix, that
cuts queries into blocks of 32, 64 or 256 rows by their number and keys into blocks of 512, the
last one cut short. There is no partial tile, so walked tiles are counted in query-key pairs, plus
what a block of queries (`BLOCK_ROWS`) and a segment (`SEGMENT_ROWS`) cost for each key, in rows;
`owned` counts operators, each of which costs as much as `OPERATOR_HEADS` further heads.

Kernels that start a block for every tile of the longest segment in every segment, as that of
FlashAttention-2 does, have blocks that find nothing to do, `empty`: on an H200 its backward took
0.9 us of an SM for each of 128 keys. As long as one costs no more than a tile walked (there: 8 us),
a longer segment, which fills some, makes no call faster. But one call may take longer than two that
share out its segments, or their keys, by length.

`tail` is what the last, longest tiles stick out beyond the average (Graham's bound has 1 there);
`throttle` is the clock that drops under a long load. Every term rises with the work, so the time
never falls when a segment is added; only where keys are split, which the measuring engine does and
training does not, may it fall as the splitting ends. Held-out mean error at head size 128: see
docs/research/attention-model.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from groundwork.jit import jit, jit_lean

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Positions in the parameters of one call; `AttentionModel.parameters` fills them.
HEADS = 0  # heads that walk keys on their own: KV heads when packed, else query heads
PACKED = 1  # query heads in one tile
TILE_Q = 2  # rows of a query tile
TILE_K = 3  # keys of a key tile
SMS = 4
CAUSAL = 5  # 1 or 0
Q_HEADS = 6
KEY_OUTER = 7  # 1 when a block owns a key tile and walks query tiles (backward)
SPLITS_KEYS = 8  # 1 when few long query tiles are split along the keys
ROW_MB = 9  # megabytes of Q and O a query token
CACHE_MB = 10  # megabytes of K and V a query token: read, and written where the cache is
LAUNCH_US = 11
KV_TILE_US = 12
QUERY_TILE_US = 13
QUERY_ROW_US = 14
TAIL = 15
CRITICAL_SCALE = 16
SPLIT_US = 17
SPLIT_ROW_US = 18
THROTTLE = 19
THROTTLE_AFTER_US = 20
L2_MB = 21  # megabytes that stay in the cache between kernels
ROW_SPILL_US = 22  # per megabyte of Q and O that does not
CACHE_SPILL_US = 23  # per megabyte of K and V that does not, while being written
CACHE_WRITE_US = 24  # per query token
BLOCKED = 25  # 1 for torch's kernel for CPUs
BLOCK_ROWS = 26  # rows of queries that take as long as a block's own cost a key
SEGMENT_ROWS = 27  # the same of a segment
OPERATOR_HEADS = 28  # heads that take as long as starting an operator
EMPTY_TILE_US = 29  # of a block beyond its segment's end; 0 where none is started
PARAMETERS = 30

FEATURES = 6

# FlashAttention-3 prepares to split keys when the query tiles of the longest sequence alone fill
# less than this share of the SMs and it has more key tiles than this ...
_SPLIT_BELOW = 0.8
_SPLIT_ABOVE_TILES = 4
# ... into pieces of the average SM's share of the rectangle (twice the causal work), plus 5%.
_SPLIT_SHARE = 2.1
# torch's kernel for CPUs: rows of its blocks, and the queries from which it takes them.
_MOST_ROWS, _MORE_ROWS, _FEW_ROWS = 256, 64, 32
_MOST_FROM, _MORE_FROM = 768, 192
_BLOCK_KEYS = 512
_MERGE_PASSES = 3  # over the rows of a segment with a prefix: two outputs, and merging them
# Beyond the L2 cache, its hits fall to none over so much more that misses rise twice as fast.
_SPILL_STEEPNESS = 2.0


@jit_lean
def _floor_div(a: int, b: int) -> int:
    """Return a // b of whole numbers with 0 <= a < 2^53 and b > 0.

    Exact: a quotient below a whole number lies at least 1 / b below it, which is more than rounding
    adds. In floating point it takes a third of the time of the processor's integer division.
    """
    return int(float(a) / float(b))


@jit_lean
def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up, of whole numbers with 0 <= a < 2^53 and b > 0."""
    return _floor_div(a + b - 1, b)


@jit_lean
def sum_of_ceilings(count: int, step: int, start: int, divisor: int) -> int:
    """Return sum over i = 1..count of ceil((i * step + start) / divisor), as Euclid's algorithm.

    Takes about as many rounds as `step` and `divisor` have steps in their greatest common divisor:
    one or two for the tile sizes in use.
    """
    total = 0
    n, m, a, b = count, divisor, step, step + start + divisor - 1
    while n > 0:
        if a >= m:
            quotient = _floor_div(a, m)
            total += ((n - 1) * n >> 1) * quotient
            a -= quotient * m
        if b >= m:
            quotient = _floor_div(b, m)
            total += n * quotient
            b -= quotient * m
        reach = a * n + b
        if reach < m:
            break
        n = _floor_div(reach, m)
        b, m, a = reach - n * m, a, m
    return total


@jit_lean
def segment_features(
    q_len: int, k_len: int, parameters: NDArray[np.float64]
) -> tuple[float, float, float, float, float, float]:
    """Return what one segment adds to a call: whole numbers, as floats.

    Args:
        q_len: query tokens; 0 makes the segment cost nothing.
        k_len: key tokens; at least `q_len` under the causal mask.
        parameters: of the call, from `AttentionModel.parameters`.

    Returns:
        To be summed over segments: tiles that blocks own, tiles walked (both of one head), query
        tokens. To be combined by maximum: tiles that the longest block walks, tiles owned. To be
        summed: the segment itself, 1.
    """
    if q_len <= 0 or k_len <= 0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if parameters[BLOCKED] != 0.0:
        return _blocked_features(q_len, k_len, parameters)
    packed = int(parameters[PACKED])
    tile_q = int(parameters[TILE_Q])
    tile_k = int(parameters[TILE_K])
    query_tiles = ceil_div(q_len * packed, tile_q)
    key_tiles = ceil_div(k_len, tile_k)
    if parameters[CAUSAL] == 0.0:
        walked = query_tiles * key_tiles
    else:
        # Query tile i ends at packed row i * tile_q, which sees i * tile_q / packed + prefix keys.
        prefix = max(0, k_len - q_len)
        walked = key_tiles + sum_of_ceilings(
            query_tiles - 1, tile_q, prefix * packed, packed * tile_k
        )
    owned, longest = query_tiles, key_tiles
    if parameters[KEY_OUTER] != 0.0:
        owned, longest = key_tiles, query_tiles
    return float(owned), float(walked), float(q_len), float(longest), float(owned), 1.0


@jit_lean
def _blocked_features(
    q_len: int, k_len: int, parameters: NDArray[np.float64]
) -> tuple[float, float, float, float, float, float]:
    """Return the features of a segment on a CPU; walked in query-key pairs."""
    rows = _FEW_ROWS
    if q_len >= _MOST_FROM:
        rows = _MOST_ROWS
    elif q_len >= _MORE_FROM:
        rows = _MORE_ROWS
    own = int(parameters[BLOCK_ROWS])
    blocks = ceil_div(q_len, rows)
    walked = int(parameters[SEGMENT_ROWS]) * k_len
    operators = passes = 1
    if parameters[CAUSAL] == 0.0:
        walked += (q_len + own * blocks) * k_len
    else:
        prefix = max(0, k_len - q_len)
        if prefix > 0:
            operators = 2
            passes = _MERGE_PASSES
            walked += (q_len + own * blocks) * prefix
        for i in range(blocks):
            stop = min((i + 1) * rows, q_len)
            keys = min(ceil_div(stop, _BLOCK_KEYS) * _BLOCK_KEYS, q_len)
            walked += (stop - i * rows + own) * keys
    # One operator runs after another, so none is the longest that others wait for.
    return float(operators), float(walked), float(q_len * passes), 0.0, float(operators), 1.0


@jit_lean
def combine(
    owned: float,
    walked: float,
    query_tokens: float,
    longest: float,
    most_owned: float,
    segments: float,
    parameters: NDArray[np.float64],
) -> float:
    """Return the microseconds of one call over segments with these summed and largest features.

    Args:
        owned: tiles that blocks own, summed over segments.
        walked: tiles walked, summed.
        query_tokens: query tokens, summed.
        longest: tiles that the longest block walks, the maximum.
        most_owned: tiles owned, the maximum over segments.
        segments: how many there are.
        parameters: of the call.
    """
    if owned <= 0.0:
        return 0.0
    sms, heads, tile_us = parameters[SMS], parameters[HEADS], parameters[KV_TILE_US]
    rows = query_tokens * parameters[Q_HEADS] / (parameters[TILE_Q] * sms)
    if parameters[BLOCKED] != 0.0:
        walked /= parameters[TILE_Q] * parameters[TILE_K]
    work = tile_us * walked * heads / sms
    # Beside the tiles: the blocks that walk take turns with them on the SMs.
    work += parameters[EMPTY_TILE_US] * (segments * most_owned - owned) * heads / sms
    critical = tile_us * longest
    busy = 0.0
    if (
        parameters[SPLITS_KEYS] != 0.0
        and most_owned * heads < _SPLIT_BELOW * sms
        and longest > _SPLIT_ABOVE_TILES
    ):
        critical = min(critical, _SPLIT_SHARE * work + tile_us)
        busy = parameters[SPLIT_US] + parameters[SPLIT_ROW_US] * rows
    busy += max(work + parameters[TAIL] * critical, parameters[CRITICAL_SCALE] * critical)
    busy += parameters[QUERY_TILE_US] * np.ceil(owned * (heads + parameters[OPERATOR_HEADS]) / sms)
    busy += parameters[QUERY_ROW_US] * rows
    touched = query_tokens * (parameters[ROW_MB] + parameters[CACHE_MB])
    spilled = _SPILL_STEEPNESS * max(0.0, touched - parameters[L2_MB])
    busy += parameters[ROW_SPILL_US] * min(spilled, query_tokens * parameters[ROW_MB])
    cached = parameters[CACHE_SPILL_US] * min(spilled, query_tokens * parameters[CACHE_MB])
    return float(finished_us(busy, query_tokens, parameters) + cached)


@jit_lean
def finished_us(busy: float, query_tokens: float, parameters: NDArray[np.float64]) -> float:
    """Return a call's time from what its SMs are busy for, launched, throttled, keys written."""
    throttled = parameters[THROTTLE] * max(0.0, busy - parameters[THROTTLE_AFTER_US])
    written = parameters[CACHE_WRITE_US] * query_tokens
    return float(parameters[LAUNCH_US] + busy + throttled + written)


@jit
def attention_us(
    q_lens: NDArray[np.int64],
    k_lens: NDArray[np.int64],
    splits: NDArray[np.int64],
    parameters: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the microseconds of each of many kernel calls.

    Args:
        q_lens: query tokens of each segment.
        k_lens: key tokens of each segment.
        splits: call g consists of segments splits[g]:splits[g + 1]; one without any tokens costs 0.
        parameters: of all the calls.

    Returns:
        float64[len(splits) - 1].
    """
    calls = len(splits) - 1
    times = np.zeros(calls, np.float64)
    for call in range(calls):
        owned, walked, tokens, longest, most, segments = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(splits[call], splits[call + 1]):
            a, b, c, d, e, f = segment_features(q_lens[i], k_lens[i], parameters)
            owned += a
            walked += b
            tokens += c
            longest = max(longest, d)
            most = max(most, e)
            segments += f
        times[call] = combine(owned, walked, tokens, longest, most, segments, parameters)
    return times
