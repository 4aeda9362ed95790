"""What the mean over attention calls cannot be below, however documents are cut and placed.

Calls share the tiles of undivided documents, their tokens and, where a document is longer than one
holder may have, its ends: of the holders of a document of L tokens, ordered by where they end, the
first j have at most j shares of tokens and j shares of query-key pairs, so the next one sees a key
at `least_end` or later. No term of the model falls with more of any of these, and all are convex or
bounded from below by convex ones, so by Jensen's inequality the mean over calls is at least the
time of the mean call. Of whole documents in one call the bound is within 2% of the call's time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_kernel import (
    BLOCKED,
    CACHE_MB,
    CACHE_SPILL_US,
    HEADS,
    KEY_OUTER,
    KV_TILE_US,
    L2_MB,
    LAUNCH_US,
    PACKED,
    Q_HEADS,
    QUERY_ROW_US,
    QUERY_TILE_US,
    ROW_MB,
    ROW_SPILL_US,
    SMS,
    SPLITS_KEYS,
    TAIL,
    TILE_K,
    TILE_Q,
    ceil_div,
    finished_us,
    sum_of_ceilings,
)
from groundwork.jit import jit, jit_lean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@jit_lean
def longest_prefix(pairs: float) -> float:
    """Return how many first tokens of a document have so many query-key pairs, x (x + 1) / 2."""
    return float((np.sqrt(8.0 * max(pairs, 0.0) + 1.0) - 1.0) / 2.0)


@jit_lean
def least_end(length: float, holders: int, most_tokens: float, most_pairs: float) -> float:
    """Return where some rank's last shard of a document ends at least, beside so many others.

    Args:
        length: tokens of the document.
        holders: ranks that may end later.
        most_tokens: that one rank has at most.
        most_pairs: query-key pairs that one rank has at most.

    Returns:
        Tokens; 0 where the others may hold it all.
    """
    pairs = 0.5 * length * (length + 1.0) - holders * most_pairs
    return float(max(length - holders * most_tokens, longest_prefix(pairs), 0.0))


def most_pairs_within(time_us: float, tokens: int, calls: Iterable[NDArray[np.float64]]) -> float:
    """Return the query-key pairs that causal attention can have at most within a time.

    Args:
        time_us: of all calls together.
        tokens: at least so many queries in each of them.
        calls: each one's parameters; all attend to the same pairs, one after another.
    """
    pair_us = 0.0
    for p in calls:
        tile_us = p[KV_TILE_US] * p[HEADS] / (p[SMS] * p[TILE_Q] * p[TILE_K])
        time_us -= p[LAUNCH_US] + p[QUERY_ROW_US] * tokens * p[Q_HEADS] / (p[TILE_Q] * p[SMS])
        if p[BLOCKED] == 0.0:  # where pairs are counted as they are
            tile_us *= p[PACKED]
            own = tokens / p[TILE_K] if p[KEY_OUTER] else tokens * p[PACKED] / p[TILE_Q]
            time_us -= p[QUERY_TILE_US] * own * p[HEADS] / p[SMS]
        pair_us += tile_us
    return float(max(time_us, 0.0) / pair_us)


@jit
def lower_bound_us(
    lengths: NDArray[np.int64],
    parameters: NDArray[np.float64],
    calls: int,
    busy_calls: int,
    most_tokens: int,
    tiles_shared: bool,
    most_pairs: float = np.inf,
) -> float:
    """Return a time that the mean over calls which share documents' causal attention is not below.

    However documents are cut into segments, in one call each or keys in two: the i-th last of the
    tiles of a document of L query rows ends at row L - i * rows of a tile or later, and walks the
    keys before that.

    Args:
        lengths: tokens of each document.
        parameters: of the calls, under the causal mask.
        calls: number of calls that share the work.
        busy_calls: how many of them surely have a token; only these pay the launch.
        most_tokens: that one holder, of one or several of the calls, has at most.
        tiles_shared: whether segments may hold the queries of several shards, as a ring's do; then
            only filled rows of tiles count.
        most_pairs: query-key pairs that one holder has at most.
    """
    tile_q, tile_k, packed = parameters[TILE_Q], parameters[TILE_K], parameters[PACKED]
    sms, heads = parameters[SMS], parameters[HEADS]
    blocked, key_outer = parameters[BLOCKED] != 0.0, parameters[KEY_OUTER] != 0.0
    walked = owned = total = 0.0
    for length in lengths:
        total += length
        rows = int(length * packed)
        pairs = 0.5 * length * (length + 1)
        if blocked:  # pairs are counted as they are; a call may be one operator
            walked += pairs / (tile_q * tile_k)
        elif tiles_shared:
            # A tile walks the keys of its last query with all its rows, and on average half a tile
            # of keys beyond.
            masked = 0.5 * length * max(0.0, tile_q / packed - 1.0)
            walked += (pairs + masked) * packed / (tile_q * tile_k)
            owned += length / tile_k if key_outer else rows / tile_q
        else:
            tiles = ceil_div(rows, int(tile_q))
            start = rows - tiles * int(tile_q)
            walked += sum_of_ceilings(tiles, int(tile_q), start, int(packed * tile_k))
            if key_outer:
                owned += _key_tiles(length, int(tile_k), most_tokens, most_pairs)
            else:
                owned += tiles
    if total <= 0.0:
        return 0.0
    tokens = total / calls
    filled = tokens * parameters[Q_HEADS] / (tile_q * sms)
    busy = (
        parameters[KV_TILE_US] * walked * heads / (sms * calls)
        + parameters[QUERY_TILE_US] * owned * heads / (sms * calls)
        + parameters[QUERY_ROW_US] * filled
    )
    if not (blocked or key_outer or parameters[SPLITS_KEYS] != 0.0):
        ends = _least_ends(lengths, most_tokens)
        busy += parameters[TAIL] * parameters[KV_TILE_US] * ends / (tile_k * calls)
    # From the size of the cache on, misses rise at least as fast as the bytes: a convex bound.
    token_mb = parameters[ROW_MB] + parameters[CACHE_MB]
    beyond = max(0.0, tokens - parameters[L2_MB] / token_mb)
    busy += parameters[ROW_SPILL_US] * beyond * parameters[ROW_MB]
    cached = parameters[CACHE_SPILL_US] * beyond * parameters[CACHE_MB]
    time = finished_us(busy, tokens, parameters) - parameters[LAUNCH_US] + cached
    return float(time + parameters[LAUNCH_US] * min(busy_calls, calls) / calls)


@jit_lean
def _key_tiles(length: int, tile_k: int, most_tokens: int, most_pairs: float) -> int:
    """Return the key tiles that the holders of a document see together at least, each once."""
    owned = ceil_div(length, tile_k)
    holders = 1
    while True:
        end = least_end(float(length), holders, float(most_tokens), most_pairs)
        if end <= 0.0:
            return owned
        # A root's rounding, far below this, must not count a tile that is not there.
        owned += ceil_div(max(int(np.ceil(end - 1e-3)), 0), tile_k)
        holders += 1


@jit
def _least_ends(lengths: NDArray[np.int64], most_tokens: int) -> float:
    """Return the least sum, over holders of so many tokens, of the longest prefix that each sees.

    The tokens that see more than t keys are sum over documents of max(0, L - t); while these are
    more than j holders have, another one has one of them.
    """
    falling = np.sort(lengths)[::-1]
    total = falling.sum()
    ends = 0.0
    held = k = 0
    above = 0.0  # tokens of the k longest documents
    while held < total:
        # The t beyond which the documents longer than it hold `held` tokens.
        while k < falling.size and above - k * falling[k] <= held:
            above += falling[k]
            k += 1
        ends += max((above - held) / k, 0.0)
        held += most_tokens
    return ends
