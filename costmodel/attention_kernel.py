"""Predicts the time of one varlen attention kernel call from its segments, in compiled code.

A segment is `q_len` query tokens that attend to `k_len` key tokens of one document, right-aligned
under the causal mask (a shard of `q_len` tokens whose prefix is `k_len - q_len`). The kernel cuts
the queries into tiles (with all query heads of a KV head packed into one tile where the kernel
packs GQA heads) and walks each query tile over its key tiles. Per segment, in closed form:

    query tiles, key tiles walked, key tiles of the longest query tile, query tokens

These are whole numbers below 2^53, so sums over segments are exact in float64 and do not depend on
the order of the segments; a search may add and remove segments one at a time. The call's time is

    work     = kv_tile_us * key tiles / SMs
    critical = kv_tile_us * longest, shortened where the kernel splits keys over idle SMs
    attend   = max(work + tail * critical, critical_scale * critical)
    busy     = attend + query_tile_us * ceil(query tiles / SMs)
               + query_row_us * query rows / (SMs * rows of a tile)
    time     = launch_us + busy + throttle * max(0, busy - throttle_after_us) + cache write

`tail` is what the last, longest tiles stick out beyond the average (Graham's bound has 1 there);
`throttle` is the clock that drops under a long load. Every term rises with the work, so the time
never falls when a segment is added. Measured errors: docs/research/attention-model.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel._jit import jit

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
LAUNCH_US = 8
KV_TILE_US = 9
QUERY_TILE_US = 10
QUERY_ROW_US = 11
TAIL = 12
CRITICAL_SCALE = 13
SPLIT_US = 14  # cost of splitting keys; negative: the kernel does not split
THROTTLE = 15
THROTTLE_AFTER_US = 16
CACHE_WRITE_US = 17  # per query token
PARAMETERS = 18

FEATURES = 4

# FlashAttention-3 splits keys only while query tiles fill less than this share of the SMs ...
_SPLIT_BELOW = 0.8
# ... and accepts a number of splits that fills them to this share of the best.
_SPLIT_FILL = 0.95


@jit
def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@jit
def _sum_of_ceilings(count: int, step: int, start: int, divisor: int) -> int:
    """Return sum over i = 1..count of ceil((i * step + start) / divisor), as Euclid's algorithm.

    Takes about as many rounds as `step` and `divisor` have steps in their greatest common divisor:
    one or two for the tile sizes in use.
    """
    total = 0
    n, m, a, b = count, divisor, step, step + start + divisor - 1
    while n > 0:
        if a >= m:
            total += (n - 1) * n // 2 * (a // m)
            a %= m
        if b >= m:
            total += n * (b // m)
            b %= m
        reach = a * n + b
        if reach < m:
            break
        n, b, m, a = reach // m, reach % m, a, m
    return total


@jit
def segment_features(
    q_len: int, k_len: int, parameters: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Return what one segment adds to a call: whole numbers, as floats.

    Args:
        q_len: query tokens; 0 makes the segment cost nothing.
        k_len: key tokens; at least `q_len` under the causal mask.
        parameters: of the call, from `AttentionModel.parameters`.

    Returns:
        Tiles that blocks own, tiles walked, tiles walked by the longest block (each of one head),
        and query tokens. The third is combined by maximum, the others by sum.
    """
    if q_len <= 0 or k_len <= 0:
        return 0.0, 0.0, 0.0, 0.0
    packed = int(parameters[PACKED])
    tile_q = int(parameters[TILE_Q])
    tile_k = int(parameters[TILE_K])
    query_tiles = _ceil_div(q_len * packed, tile_q)
    key_tiles = _ceil_div(k_len, tile_k)
    if parameters[CAUSAL] == 0.0:
        walked = query_tiles * key_tiles
    else:
        # Query tile i ends at packed row i * tile_q, which sees i * tile_q / packed + prefix keys.
        prefix = max(0, k_len - q_len)
        walked = key_tiles + _sum_of_ceilings(
            query_tiles - 1, tile_q, prefix * packed, packed * tile_k
        )
    if parameters[KEY_OUTER] != 0.0:
        return float(key_tiles), float(walked), float(query_tiles), float(q_len)
    return float(query_tiles), float(walked), float(key_tiles), float(q_len)


@jit
def combine(
    tiles: float,
    walked: float,
    longest: float,
    query_tokens: float,
    parameters: NDArray[np.float64],
) -> float:
    """Return the microseconds of one call over segments with these summed and largest features.

    Args:
        tiles: tiles that blocks own, summed over segments.
        walked: tiles walked, summed.
        longest: tiles walked by the longest block, the maximum.
        query_tokens: query tokens, summed.
        parameters: of the call.
    """
    if tiles <= 0.0:
        return 0.0
    sms = parameters[SMS]
    blocks = tiles * parameters[HEADS]
    work = parameters[KV_TILE_US] * walked * parameters[HEADS] / sms
    critical = parameters[KV_TILE_US] * longest
    if parameters[SPLIT_US] >= 0.0 and blocks < _SPLIT_BELOW * sms:
        spread = critical * blocks / (_SPLIT_FILL * sms)
        critical = min(critical, max(parameters[KV_TILE_US], spread) + parameters[SPLIT_US])
    attend = max(work + parameters[TAIL] * critical, parameters[CRITICAL_SCALE] * critical)
    rows = query_tokens * parameters[Q_HEADS] / parameters[TILE_Q]
    busy = (
        attend
        + parameters[QUERY_TILE_US] * np.ceil(blocks / sms)
        + parameters[QUERY_ROW_US] * rows / sms
    )
    return _finish(busy, query_tokens, parameters)


@jit
def _finish(busy: float, query_tokens: float, parameters: NDArray[np.float64]) -> float:
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
        tiles, walked, longest, tokens = 0.0, 0.0, 0.0, 0.0
        for i in range(splits[call], splits[call + 1]):
            a, b, c, d = segment_features(q_lens[i], k_lens[i], parameters)
            tiles += a
            walked += b
            longest = max(longest, c)
            tokens += d
        times[call] = combine(tiles, walked, longest, tokens, parameters)
    return times


@jit
def lower_bound_us(
    total_pairs: float,
    parameters: NDArray[np.float64],
    query_tokens: float = 0.0,
    calls: int = 1,
    busy_calls: int = 1,
) -> float:
    """Return a time that the mean over `calls` calls with this much work cannot be below.

    A tile holds at most its rows times its keys of query-key pairs and no term of the model falls
    with more tiles; the throttle is convex, so by Jensen's inequality the mean over calls is at
    least the time of the mean call. For one call it bounds the call.

    Args:
        total_pairs: query-key pairs of all the calls, of one query head.
        parameters: of the calls.
        query_tokens: query tokens of all the calls, where known; makes the bound tighter.
        calls: number of calls that share the work.
        busy_calls: how many of them surely have a token; only these pay the launch.
    """
    if total_pairs <= 0.0 and query_tokens <= 0.0:
        return 0.0
    sms = parameters[SMS]
    tile_pairs = parameters[TILE_Q] * parameters[TILE_K]
    walked = total_pairs * parameters[Q_HEADS] / tile_pairs / calls
    rows = query_tokens * parameters[Q_HEADS] / parameters[TILE_Q] / calls
    if parameters[KEY_OUTER] == 0.0:
        blocks = rows
    elif parameters[CAUSAL] != 0.0:  # a segment has at least as many keys as queries
        blocks = rows * parameters[TILE_Q] / parameters[TILE_K]
    else:
        blocks = 0.0
    busy = (
        parameters[KV_TILE_US] * walked / sms
        + parameters[QUERY_TILE_US] * blocks / sms
        + parameters[QUERY_ROW_US] * rows / sms
    )
    if calls == 1:
        waves = max(1.0, np.ceil(blocks / sms))
        busy += parameters[QUERY_TILE_US] * (waves - blocks / sms)
    time = _finish(busy, query_tokens / calls, parameters) - parameters[LAUNCH_US]
    return float(time + parameters[LAUNCH_US] * min(busy_calls, calls) / calls)
