"""A first placement: longest documents first, each to the rank that it fills least.

How full a rank is is the larger of its share of the pairs and its share of the tokens: long
documents have more of the first and are spread by work, short ones then even out the tokens. A
document with more pairs or tokens than a rank should hold is cut in as few parts as fit, of equal
work, at multiples of the grid. Other strategies' shards can be taken over as well.
"""

import numpy as np

from flashcp.search.loads import Floats, add_exchange, add_piece, pairs_of
from flashcp.search.state import PER_NODE, Ints, append_piece, list_pieces, new_pool
from flashcp.search.weights import LOADS, MEAN_PAIRS, MEAN_TOKENS, PAIRS, TOKENS
from groundwork.jit import jit_as, jit_lean

# A document of this much more than so many ranks' worth is not cut once more for that.
_LENIENCE = 0.05


@jit_lean
def _add_range(loads: Floats, rank: int, start: int, stop: int, weights: Floats) -> None:
    """Add a piece that may be empty."""
    if stop > start:
        add_piece(loads, rank, start, stop, 1.0, weights)


@jit_as("void(i8, i8, i8, b1, i8[::1])", lean=True)
def _cut_giant(length: int, parts: int, grid: int, folded: bool, edges: Ints) -> None:
    """Write the edges of a document's 2 * parts ranges, heads then tails, some of them empty.

    Folded, part i has head i and tail parts - 1 - i; otherwise all heads are empty and part i has
    tail i. Ends of equal work lie at e_k = length * sqrt(1 - k / parts). A part receives at least
    M = max over j of (e_0 + ... + e_j - length) / (j + 1), see `flashcp.traffic_bound`; to receive
    no more, part k holds e_k - M tokens: its tail, and what is left of that as its head.
    """
    edges[: parts + 1] = 0
    edges[2 * parts] = length
    if folded and parts > 1:
        ends = received = 0.0
        for k in range(parts):
            ends += np.sqrt(1.0 - k / parts)
            received = max(received, (ends - 1.0) / (k + 1))
        for k in range(parts):
            head = max(np.sqrt(1.0 - (k + 1) / parts) - received, 0.0)
            edges[k + 1] = edges[k] + (int(length * head) & -grid)
    for k in range(parts - 1):
        head_squares = float(edges[k + 1]) ** 2 - float(edges[k]) ** 2
        stop = edges[2 * parts - k]
        share = float(length) * float(length) / parts - head_squares
        start = int(np.sqrt(max(float(stop) * float(stop) - share, 0.0))) & -grid
        edges[2 * parts - k - 1] = min(max(start, edges[parts]), stop)


@jit_lean
def _emptiest(
    loads: Floats, edges: Ints, head: int, tail: int, taken: Ints, weights: Floats
) -> int:
    """Return the rank, none of `taken`, that is least full with two ranges of a document added."""
    pairs = pairs_of(edges[head], edges[head + 1]) + pairs_of(edges[tail], edges[tail + 1])
    tokens = edges[head + 1] - edges[head] + edges[tail + 1] - edges[tail]
    best = -1
    least = np.inf
    for rank in range(loads.shape[0]):
        filled = max(
            (loads[rank, PAIRS] + pairs) / weights[MEAN_PAIRS],
            (loads[rank, TOKENS] + tokens) / weights[MEAN_TOKENS],
        )
        if filled >= least:
            continue
        free = True
        for holder in taken:
            if holder == rank:
                free = False
        if free:
            least = filled
            best = rank
    return best


@jit_as(
    "Tuple((i8[:, ::1], i8[::1], i8[::1], i8[:, ::1], i8[:, ::1], f8[:, ::1]))"
    "(i8[::1], i8, i8, i8, b1, f8[::1])"
)
def seed(
    lengths: Ints, cp: int, pieces: int, grid: int, folded: bool, weights: Floats
) -> tuple[Ints, Ints, Ints, Ints, Ints, Floats]:
    """Make a first placement.

    Args:
        lengths: tokens of each document, falling, [D].
        cp: CP degree.
        pieces: size of the pool.
        grid: cuts are at multiples of so many tokens.
        folded: cut giants so that a rank holds an early and a late part of them, not one part.
        weights: of the pack.

    Returns:
        Pool, first, counters, lists, ranks and loads; see `flashcp.search.state`.
    """
    pool, first, counters = new_pool(lengths.size, pieces)
    loads = np.zeros((cp, LOADS))
    edges = np.empty(2 * cp + 1, dtype=np.int64)
    owners = np.empty(cp, dtype=np.int64)
    for document in range(lengths.size):
        length = lengths[document]
        share = max(pairs_of(0, length) / weights[MEAN_PAIRS], length / weights[MEAN_TOKENS])
        parts = min(max(int(np.ceil(share - _LENIENCE)), 1), cp)
        _cut_giant(length, parts, grid, folded, edges)
        # The last part first: it is the hardest to house.
        for part in range(parts - 1, -1, -1):
            tail = 2 * parts - 1 - part if folded else parts + part
            owner = _emptiest(loads, edges, part, tail, owners[part + 1 : parts], weights)
            owners[part] = owner
            _add_range(loads, owner, edges[part], edges[part + 1], weights)
            _add_range(loads, owner, edges[tail], edges[tail + 1], weights)
        for i in range(2 * parts):
            if edges[i + 1] > edges[i]:
                owner = owners[min(i, 2 * parts - 1 - i) if folded else i % parts]
                append_piece(pool, first, counters, document, owner, edges[i], edges[i + 1])
    lists, ranks = list_pieces(pool, first, counters, cp)
    for document in range(lengths.size):
        add_exchange(pool, first, counters, ranks, document, 1.0, loads)
    return pool, first, counters, lists, ranks, loads


@jit_as(
    "Tuple((i8[:, ::1], i8[::1], i8[::1], i8[:, ::1], i8[:, ::1], f8[:, ::1]))"
    "(i8[:, ::1], i8, i8, i8, i8, f8[::1])"
)
def adopt(
    rows: Ints, documents: int, cp: int, per_node: int, pieces: int, weights: Floats
) -> tuple[Ints, Ints, Ints, Ints, Ints, Floats]:
    """Start from another strategy's shards.

    Args:
        rows: shards in order of document and start, int64 [shards, 4].
        documents: how many.
        cp: CP degree.
        per_node: ranks that share a node, where what crosses nodes is to count; else 0.
        pieces: size of the pool; at least as many as shards.
        weights: of the pack.

    Returns:
        As `seed`.
    """
    pool, first, counters = new_pool(documents, pieces)
    counters[PER_NODE] = per_node
    loads = np.zeros((cp, LOADS))
    for i in range(rows.shape[0]):
        rank, document, start, stop = rows[i, 0], rows[i, 1], rows[i, 2], rows[i, 3]
        _add_range(loads, rank, start, stop, weights)
        append_piece(pool, first, counters, document, rank, start, stop)
    lists, ranks = list_pieces(pool, first, counters, cp)
    for document in range(documents):
        add_exchange(pool, first, counters, ranks, document, 1.0, loads)
    return pool, first, counters, lists, ranks, loads
