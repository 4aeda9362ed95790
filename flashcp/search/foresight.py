"""A bound on the energy after a move that is as good as the energy itself, before the move is made.

Nine of ten moves whose pairs and tokens look good raise the energy all the same. Making one and
taking it back relinks pieces, walks both documents four times and copies all loads twice. Here only
the loads that it changes are worked out: of the two ranks from the pieces that move and what they
are joined to, of the ranks that exchange a document from those of its pieces whose last holder
changes. Sums over ranks that the move leaves alone are kept from the placement before. It is the
energy but for rounding; less a billionth it is a bound, so a move that it rules out would surely
have been taken back, and plans stay as they are, bit by bit (docs/research/auto.md). What
crosses nodes it does not know, and where that counts it is not asked.
"""

import numpy as np

from flashcp.search.energy import (
    eighth_power,
    eighth_root,
    exchange_time,
    rank_excess,
    rank_time,
    rank_traffic,
)
from flashcp.search.loads import Floats, piece_costs
from flashcp.search.moves import LOWER, PIECE, SIDE, UPPER
from flashcp.search.state import CUTS, NEXT, PREVIOUS, RANK, SEEN, STAMP, START, STOP, Ints
from flashcp.search.weights import (
    BALANCE_WEIGHT,
    LOADS,
    LOCAL,
    PAIRS,
    PIECE_WEIGHT,
    RECEIVED,
    SENT,
    TILES,
    TIME,
    TIME_WEIGHT,
    TOKENS,
)
from groundwork.jit import jit_lean

# Columns of what is kept of each rank, [N + 1, KEPT]; the last row has their sums.
QUARTIC, MOVED, TIMED, EXCESS = range(4)  # traffic^4, exchanged^8, time^8, excess^2
KEPT = 4

_ROUNDING = 1e-9  # share of an energy that rounding is far below
_LOST = 1e-12  # share of a sum that taking one rank's part out of it may leave wrong


@jit_lean
def are_apart(pool: Ints, first: Ints) -> bool:
    """Tell whether neighbouring pieces are on different ranks, as they stay once they are.

    A seed may leave two on one rank. A move of their document joins them, which no foresight sees.
    """
    for document in range(first.size):
        piece = first[document]
        while pool[piece, NEXT] >= 0:
            after = pool[piece, NEXT]
            if pool[after, RANK] == pool[piece, RANK]:
                return False
            piece = after
    return True


@jit_lean
def keep(loads: Floats, traffic: Floats, excess: Floats, weights: Floats, kept: Floats) -> float:
    """Fill in what is kept of a placement; returns the time of its exchange."""
    ranks = loads.shape[0]
    kept[ranks, :] = 0.0
    for rank in range(ranks):
        square = traffic[rank] * traffic[rank]
        kept[rank, QUARTIC] = square * square
        kept[rank, MOVED] = eighth_power(max(loads[rank, SENT], loads[rank, RECEIVED]))
        kept[rank, EXCESS] = excess[rank] * excess[rank]
        kept[ranks, MOVED] += kept[rank, MOVED]
    exchange_us = exchange_time(kept[ranks, MOVED], weights)
    for rank in range(ranks):
        kept[rank, TIMED] = rank_time(loads, rank, exchange_us, weights)
        kept[ranks, QUARTIC] += kept[rank, QUARTIC]
        kept[ranks, TIMED] += kept[rank, TIMED]
        kept[ranks, EXCESS] += kept[rank, EXCESS]
    return exchange_us


@jit_lean
def _add(loads: Floats, rank: int, start: int, stop: int, sign: float, weights: Floats) -> None:
    """Add what one piece costs, but for its pairs and tokens."""
    tiles, us, local = piece_costs(start, stop, weights)
    loads[rank, TILES] += sign * tiles
    loads[rank, TIME] += sign * us
    loads[rank, LOCAL] += sign * local


@jit_lean
def _shift(
    pool: Ints, piece: int, lower: int, upper: int, here: int, there: int, weights: Floats,
    after: Floats,
) -> int:  # fmt: skip
    """Account for tokens that change ranks and what they are joined to; returns the cuts added."""
    start, stop = pool[piece, START], pool[piece, STOP]
    left, right = pool[piece, PREVIOUS], pool[piece, NEXT]
    cuts = 0
    _add(after, here, start, stop, -1.0, weights)
    if lower > start:
        cuts += 1
        left = -1
        _add(after, here, start, lower, 1.0, weights)
    if upper < stop:
        cuts += 1
        right = -1
        _add(after, here, upper, stop, 1.0, weights)
    start, stop = lower, upper
    if left >= 0 and pool[left, RANK] == there:
        cuts -= 1
        start = pool[left, START]
        _add(after, there, start, lower, -1.0, weights)
    if right >= 0 and pool[right, RANK] == there:
        cuts -= 1
        stop = pool[right, STOP]
        _add(after, there, upper, stop, -1.0, weights)
    _add(after, there, start, stop, 1.0, weights)
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
def _exchange(
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
def energy_after(
    pool: Ints, counters: Ints, ranks: Ints, loads: Floats, weights: Floats, moves: int, move: Ints,
    pairs: float, tokens: int, token_weight: float, exchange_us: float, kept: Floats,
    after: Floats, touched: Ints,
) -> float:  # fmt: skip
    """Return an energy that a move does not lead below, by a billionth less than it leads to.

    Args:
        pool: the placement's.
        counters: the placement's; only the mark of the last visit changes.
        ranks: the placement's; likewise.
        loads: before the move, [N, LOADS].
        weights: of the pack.
        moves: how many pieces move, of as many documents.
        move: the move, [2, MOVE].
        pairs: that the first rank gives, less those that it gets.
        tokens: likewise.
        token_weight: as for `flashcp.search.energy.strain`.
        exchange_us: from `keep`.
        kept: from `keep`.
        after: equal to the loads, and again at the end, [N, LOADS].
        touched: room for a rank each, [N].
    """
    count = loads.shape[0]
    one, other = move[0, SIDE], move[1, SIDE]
    touched[0], touched[1] = one, other
    changed = 2
    cuts = counters[CUTS]
    exchanged = False
    for i in range(moves):
        piece, lower, upper = move[i, PIECE], move[i, LOWER], move[i, UPPER]
        here, there = move[i, SIDE], move[1 - i, SIDE]
        cuts += _shift(pool, piece, lower, upper, here, there, weights, after)
        whole = pool[piece, START] == lower and pool[piece, STOP] == upper
        if not whole or pool[piece, NEXT] >= 0 or pool[piece, PREVIOUS] >= 0:
            exchanged = True
            changed = _exchange(
                pool, counters, ranks, piece, lower, upper, here, there, after, touched, changed
            )
    after[one, PAIRS] -= pairs
    after[other, PAIRS] += pairs
    after[one, TOKENS] -= tokens
    after[other, TOKENS] += tokens

    excess = kept[count, EXCESS] * (1.0 - _LOST) - kept[one, EXCESS] - kept[other, EXCESS]
    for i in range(2):
        rank = touched[i]
        over = rank_excess(after[rank, PAIRS], after[rank, TILES], weights)
        excess += over * over
    quartic = kept[count, QUARTIC] * (1.0 - _LOST)
    moved = kept[count, MOVED] * (1.0 - _LOST)
    for i in range(changed):
        rank = touched[i]
        traffic = rank_traffic(
            after[rank, SENT], after[rank, RECEIVED], after[rank, TOKENS], token_weight, weights
        )
        quartic += traffic * traffic * traffic * traffic - kept[rank, QUARTIC]
        moved += eighth_power(max(after[rank, SENT], after[rank, RECEIVED])) - kept[rank, MOVED]
    if exchanged:
        exchange_us = exchange_time(moved, weights)
        timed = 0.0
        for rank in range(count):
            timed += rank_time(after, rank, exchange_us, weights)
    else:
        timed = kept[count, TIMED] * (1.0 - _LOST) - kept[one, TIMED] - kept[other, TIMED]
        for i in range(2):
            timed += rank_time(after, touched[i], exchange_us, weights)
        timed = max(timed, 0.0)
    for i in range(changed):
        rank = touched[i]
        for column in range(LOADS):
            after[rank, column] = loads[rank, column]
    found = np.sqrt(np.sqrt(max(quartic, 0.0)))
    found += weights[TIME_WEIGHT] * eighth_root(timed / count)
    found += weights[BALANCE_WEIGHT] * np.sqrt(max(excess, 0.0)) + weights[PIECE_WEIGHT] * cuts
    return float(found * (1.0 - _ROUNDING))
