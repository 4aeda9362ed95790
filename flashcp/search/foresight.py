"""A bound on the energy after a move that is as good as the energy itself, before the move is made.

Nine of ten moves whose pairs and tokens look good raise the energy all the same. Making one and
taking it back relinks pieces, walks both documents four times and copies all loads twice. Here only
the loads that it changes are worked out (`flashcp.search.loads_after`), and sums over ranks that
the move leaves alone are kept from the placement before. It is the energy but for rounding; less a
billionth it is a bound, so a move that it rules out would surely have been taken back, and plans
stay as they are, bit by bit (docs/research/auto.md).
"""

import numpy as np

from flashcp.search.energy import (
    across_time,
    eighth_power,
    eighth_root,
    exchange_time,
    rank_excess,
    rank_time,
    rank_traffic,
)
from flashcp.search.loads import Floats
from flashcp.search.loads_after import exchange, exchange_across, shift
from flashcp.search.moves import LOWER, PIECE, SIDE, UPPER
from flashcp.search.state import (
    CUTS,
    NEXT,
    PER_NODE,
    PREVIOUS,
    RANK,
    START,
    STOP,
    Ints,
)
from flashcp.search.weights import (
    ACROSS,
    BALANCE_WEIGHT,
    LOADS,
    PAIRS,
    PIECE_WEIGHT,
    RECEIVED,
    SENT,
    TILES,
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
    exchange_us = exchange_time(kept[ranks, MOVED], weights) + across_time(loads, weights)
    for rank in range(ranks):
        kept[rank, TIMED] = rank_time(loads, rank, exchange_us, weights)
        kept[ranks, QUARTIC] += kept[rank, QUARTIC]
        kept[ranks, TIMED] += kept[rank, TIMED]
        kept[ranks, EXCESS] += kept[rank, EXCESS]
    return exchange_us


@jit_lean
def _restore(loads: Floats, touched: Ints, changed: int, crossed: bool, after: Floats) -> None:
    """Make `after` equal to the loads again; what crosses may be wrong of any rank."""
    for i in range(changed):
        rank = touched[i]
        for column in range(LOADS):
            after[rank, column] = loads[rank, column]
    if crossed:
        for rank in range(loads.shape[0]):
            after[rank, ACROSS] = loads[rank, ACROSS]


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
        cuts += shift(pool, piece, lower, upper, here, there, weights, after)
        whole = pool[piece, START] == lower and pool[piece, STOP] == upper
        if not whole or pool[piece, NEXT] >= 0 or pool[piece, PREVIOUS] >= 0:
            exchanged = True
            changed = exchange(
                pool, counters, ranks, piece, lower, upper, here, there, after, touched, changed
            )
            if counters[PER_NODE] > 0:
                exchange_across(pool, counters, ranks, piece, lower, upper, there, after)
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
        exchange_us = exchange_time(moved, weights) + across_time(after, weights)
        timed = 0.0
        for rank in range(count):
            timed += rank_time(after, rank, exchange_us, weights)
    else:
        timed = kept[count, TIMED] * (1.0 - _LOST) - kept[one, TIMED] - kept[other, TIMED]
        for i in range(2):
            timed += rank_time(after, touched[i], exchange_us, weights)
        timed = max(timed, 0.0)
    _restore(loads, touched, changed, exchanged and counters[PER_NODE] > 0, after)
    found = np.sqrt(np.sqrt(max(quartic, 0.0)))
    found += weights[TIME_WEIGHT] * eighth_root(timed / count)
    found += weights[BALANCE_WEIGHT] * np.sqrt(max(excess, 0.0)) + weights[PIECE_WEIGHT] * cuts
    return float(found * (1.0 - _ROUNDING))
