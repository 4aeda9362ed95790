"""What a move changes of the loads, worked out before it is made; nothing but the loads changes.

Of the two ranks from the pieces that move and what they are joined to, of the ranks that exchange a
document from those of its pieces whose last holder changes. Where what crosses nodes counts, a
document that is exchanged is walked twice for it, as it was and as it will be: who sends what
depends on a node's last piece, not a rank's. Once the move is made, `flashcp.search.loads` counts
the same.
"""

from flashcp.search.loads import Floats, add_across, add_costs
from flashcp.search.state import (
    NEXT,
    PREVIOUS,
    RANK,
    SEEN,
    STAMP,
    START,
    STOP,
    Ints,
)
from flashcp.search.weights import RECEIVED, SENT
from groundwork.jit import jit_lean


@jit_lean
def shift(
    pool: Ints, piece: int, lower: int, upper: int, here: int, there: int, weights: Floats,
    after: Floats,
) -> int:  # fmt: skip
    """Account for tokens that change ranks and what they are joined to; returns the cuts added."""
    start, stop = pool[piece, START], pool[piece, STOP]
    left, right = pool[piece, PREVIOUS], pool[piece, NEXT]
    cuts = 0
    add_costs(after, here, start, stop, -1.0, weights)
    if lower > start:
        cuts += 1
        left = -1
        add_costs(after, here, start, lower, 1.0, weights)
    if upper < stop:
        cuts += 1
        right = -1
        add_costs(after, here, upper, stop, 1.0, weights)
    start, stop = lower, upper
    if left >= 0 and pool[left, RANK] == there:
        cuts -= 1
        start = pool[left, START]
        add_costs(after, there, start, lower, -1.0, weights)
    if right >= 0 and pool[right, RANK] == there:
        cuts -= 1
        stop = pool[right, STOP]
        add_costs(after, there, upper, stop, -1.0, weights)
    add_costs(after, there, start, stop, 1.0, weights)
    return cuts


@jit_lean
def _touch(rank: int, touched: Ints, count: int) -> int:
    """Enter a rank among those touched, once."""
    for i in range(count):
        if touched[i] == rank:
            return count
    touched[count] = rank
    return count + 1


@jit_lean
def exchange(
    pool: Ints, counters: Ints, ranks: Ints, piece: int, lower: int, upper: int, here: int,
    there: int, after: Floats, touched: Ints, count: int,
) -> int:  # fmt: skip
    """Account for what a document's ranks send and receive once tokens of it change ranks.

    Who sends what is in `flashcp.search.loads.add_exchange`. Before the part that moves only those
    pieces matter that lie after the last earlier one of either rank. Returns the ranks touched.
    """
    counters[STAMP] += 1
    stamp = counters[STAMP]
    later = 0  # ranks with a piece after the part
    beyond = pool[piece, NEXT]
    while beyond >= 0:
        rank = pool[beyond, RANK]
        if ranks[rank, SEEN] != stamp:
            ranks[rank, SEEN] = stamp
            later += 1
        beyond = pool[beyond, NEXT]
    if upper < pool[piece, STOP] and ranks[here, SEEN] != stamp:
        ranks[here, SEEN] = stamp
        later += 1
    before = pool[piece, PREVIOUS]
    rest = lower - pool[piece, START]  # tokens of the piece that stay before the part
    start = lower
    tokens = upper - lower
    ends_here = ranks[here, SEEN] != stamp  # the part is the giver's last of this document
    ends_there = ranks[there, SEEN] != stamp  # it becomes the taker's
    if ends_here:
        after[here, SENT] -= tokens * later
        after[here, RECEIVED] -= start
    else:
        after[here, SENT] -= tokens * (later - 1)
        after[here, RECEIVED] += tokens
    if ends_there:
        after[there, SENT] += tokens * later
        after[there, RECEIVED] += start
    else:
        after[there, SENT] += tokens * (later - 1)
        after[there, RECEIVED] -= tokens
    while ends_here or ends_there:
        if rest > 0:
            rank, start, tokens, rest = here, pool[piece, START], rest, 0
        elif before >= 0:
            rank, start = pool[before, RANK], pool[before, START]
            tokens = pool[before, STOP] - start
            before = pool[before, PREVIOUS]
        else:
            break
        more = int(ends_there) - int(ends_here)  # ranks with a later piece
        if rank == here and ends_here:
            more += 1
            after[here, RECEIVED] += start + tokens
            ends_here = False
        elif rank == there and ends_there:
            more -= 1
            after[there, RECEIVED] -= start + tokens
            ends_there = False
        if more != 0:
            after[rank, SENT] += tokens * more
            count = _touch(rank, touched, count)
    return count


@jit_lean
def exchange_across(
    pool: Ints, counters: Ints, ranks: Ints, moved: int, lower: int, upper: int, there: int,
    after: Floats,
) -> None:  # fmt: skip
    """Account for what a document's ranks send to other nodes once tokens of it change ranks."""
    last = moved
    while pool[last, NEXT] >= 0:
        last = pool[last, NEXT]
    for then in range(2):
        counters[STAMP] += 1
        piece, nodes, sign = last, 0, 2.0 * then - 1.0
        while piece >= 0:
            rank, start, stop = pool[piece, RANK], pool[piece, START], pool[piece, STOP]
            if then and piece == moved:
                if upper < stop:
                    nodes = add_across(counters, ranks, rank, sign * (stop - upper), nodes, after)
                nodes = add_across(counters, ranks, there, sign * (upper - lower), nodes, after)
                stop = lower
            if start < stop:
                nodes = add_across(counters, ranks, rank, sign * (stop - start), nodes, after)
            piece = pool[piece, PREVIOUS]
