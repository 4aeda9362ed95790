"""A first placement: longest documents first, each to the rank that it fills least.

How full a rank is is the larger of its share of the pairs and its share of the tokens: long
documents have more of the first and are spread by work, short ones then even out the tokens. A
document with more pairs or tokens than a rank should hold is cut in as few pieces as fit, of equal
work, at multiples of the grid.
"""

import numpy as np

from flashcp.search.loads import Floats, add_piece, pairs_of
from flashcp.search.state import NEXT, RANK, Ints, append_piece, enlist
from flashcp.search.weights import MEAN_PAIRS, MEAN_TOKENS, PAIRS, TOKENS
from groundwork.jit import jit

_SPARE = 64


@jit
def place(
    lengths: Ints, grid: int, pool: Ints, first: Ints, free: Ints, counters: Ints,
    loads: Floats, weights: Floats,
) -> None:  # fmt: skip
    """Fill an empty pool with a first placement, not yet listed.

    Args:
        lengths: tokens of each document, falling, [D].
        grid: cuts are at multiples of so many tokens.
        pool, first, free, counters: empty, changed.
        loads: zeros [N, LOADS]; gets everything but the exchange.
        weights: of the pack.
    """
    ranks = loads.shape[0]
    last = np.full(lengths.size, -1, dtype=np.int64)
    owners = np.empty(ranks, dtype=np.int64)
    cuts = np.empty(ranks + 1, dtype=np.int64)
    for document in range(lengths.size):
        length = lengths[document]
        share = max(pairs_of(0, length) / weights[MEAN_PAIRS], length / weights[MEAN_TOKENS])
        # A document of a little more than so many ranks' worth is not cut once more for that.
        parts = min(max(int(np.ceil(share - 0.05)), 1), ranks)
        cuts[0] = 0
        for i in range(1, parts):
            at = int(length * np.sqrt(i / parts)) // grid * grid
            cuts[i] = max(at, cuts[i - 1])
        cuts[parts] = length
        # The last part first: it is the hardest to house.
        for i in range(parts - 1, -1, -1):
            owners[i] = -1
            if cuts[i + 1] > cuts[i]:
                owners[i] = _emptiest(loads, cuts[i], cuts[i + 1], owners[i + 1 : parts], weights)
                add_piece(loads, owners[i], cuts[i], cuts[i + 1], 1.0, weights)
        for i in range(parts):
            if owners[i] >= 0:
                append_piece(
                    pool, first, free, counters, last, document, owners[i], cuts[i], cuts[i + 1]
                )


@jit
def _emptiest(loads: Floats, start: int, stop: int, taken: Ints, weights: Floats) -> int:
    """Return the rank, none of `taken`, that is least full with [start, stop) added."""
    pairs = pairs_of(start, stop)
    best = -1
    least = np.inf
    for rank in range(loads.shape[0]):
        free = True
        for other in taken:
            if other == rank:
                free = False
        if not free:
            continue
        filled = max(
            (loads[rank, PAIRS] + pairs) / weights[MEAN_PAIRS],
            (loads[rank, TOKENS] + stop - start) / weights[MEAN_TOKENS],
        )
        if filled < least:
            least = filled
            best = rank
    return best


@jit
def list_pieces(pool: Ints, first: Ints, ranks: int) -> tuple[Ints, Ints]:
    """Return each rank's list of pieces, with room for some more than twice the longest.

    Returns:
        Lists, [N, most]; sizes, [N].
    """
    sizes = np.zeros(ranks, dtype=np.int64)
    for document in range(first.size):
        piece = first[document]
        while piece >= 0:
            sizes[pool[piece, RANK]] += 1
            piece = pool[piece, NEXT]
    lists = np.full((ranks, 2 * sizes.max() + _SPARE), -1, dtype=np.int64)
    sizes[:] = 0
    for document in range(first.size):
        piece = first[document]
        while piece >= 0:
            enlist(pool, lists, sizes, piece)
            piece = pool[piece, NEXT]
    return lists, sizes
