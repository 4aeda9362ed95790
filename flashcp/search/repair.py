"""Gives every rank exactly its tokens, C / N give or take one.

The search keeps tokens only nearly equal. Here the rank with the largest surplus gives to the one
that lacks most: a whole piece, or the head, the tail or a range near the head of one, whichever
leaves the lowest energy. What is less than a tile comes out of the first tile of a piece and leaves
the rest of the piece on a tile boundary: [0, x) stays, [x, 128) goes, [128, ...) stays. That costs
one tile and at most 127 tokens of traffic; a plain cut at x would make every later tile straddle two.
"""

import numpy as np

from flashcp.search.energy import energy, strain
from flashcp.search.loads import Floats, account_joins, add_exchange, add_piece
from flashcp.search.state import (
    CUTS,
    DOCUMENT,
    RANK,
    STAMP,
    START,
    STOP,
    Ints,
    delist,
    enlist,
    join_neighbours,
    move_back,
    move_part,
)
from flashcp.search.weights import LOADS, TOKENS
from groundwork.jit import jit

_TOKEN_WEIGHT = 2.0  # of what later steps of the repair will move
CUTS_A_RANK = 12  # most pieces that the repair adds, a rank


@jit
def repair(
    pool: Ints, first: Ints, free: Ints, counters: Ints, lists: Ints, sizes: Ints,
    loads: Floats, weights: Floats, grid: int,
) -> None:  # fmt: skip
    """Move tokens until all ranks hold equal ones; arguments as `flashcp.search.anneal.anneal`'s.

    The pool must have room for CUTS_A_RANK pieces a rank. Ends because every step moves tokens from a
    surplus to a lack and overshoots neither.
    """
    ranks = sizes.size
    order = np.empty(free.size, dtype=np.int64)
    seen = np.zeros(ranks, dtype=np.int64)
    saved = np.empty((ranks, LOADS))
    counters[STAMP] = 0
    targets = _targets(loads)
    while True:
        giver = 0
        taker = 0
        for rank in range(1, ranks):
            if loads[rank, TOKENS] - targets[rank] > loads[giver, TOKENS] - targets[giver]:
                giver = rank
            if loads[rank, TOKENS] - targets[rank] < loads[taker, TOKENS] - targets[taker]:
                taker = rank
        surplus = int(loads[giver, TOKENS]) - targets[giver]
        if surplus <= 0:
            return
        amount = min(surplus, targets[taker] - int(loads[taker, TOKENS]))
        if lists.shape[1] - max(sizes[giver], sizes[taker]) < 4:
            grown = np.full((ranks, 2 * lists.shape[1]), -1, dtype=np.int64)
            grown[:, : lists.shape[1]] = lists
            lists = grown
        best_piece = -1
        best_from, best_to = 0, 0
        least = np.inf
        for slot in range(sizes[giver]):
            piece = lists[giver, slot]
            start = pool[piece, START]
            stop = pool[piece, STOP]
            for way in range(3):
                lower, upper = _range(start, stop, amount, grid, way)
                if upper <= lower:
                    continue
                saved[:, :] = loads
                cuts = counters[CUTS]
                beyond, part = _take(
                    pool, first, free, counters, piece, lower, upper, taker,
                    loads, weights, order, seen,
                )  # fmt: skip
                value = _energy(loads, counters[CUTS], weights)
                _give_back(pool, first, free, counters, piece, beyond, part, giver)
                loads[:, :] = saved
                counters[CUTS] = cuts
                if value < least:
                    least = value
                    best_piece = piece
                    best_from, best_to = lower, upper
        document = pool[best_piece, DOCUMENT]
        beyond, part = _take(
            pool, first, free, counters, best_piece, best_from, best_to, taker,
            loads, weights, order, seen,
        )  # fmt: skip
        if beyond >= 0:
            enlist(pool, lists, sizes, beyond)
        if part >= 0:
            enlist(pool, lists, sizes, part)
        else:
            delist(pool, lists, sizes, best_piece, giver)
            enlist(pool, lists, sizes, best_piece)
        joined = counters[CUTS]
        join_neighbours(pool, first, free, counters, lists, sizes, document)
        counters[CUTS] = joined


@jit
def _targets(loads: Floats) -> Ints:
    """Return how many tokens each rank shall hold; those with most now get what does not divide."""
    ranks = loads.shape[0]
    tokens = np.empty(ranks, dtype=np.int64)
    for rank in range(ranks):
        tokens[rank] = int(loads[rank, TOKENS])
    share = tokens.sum() // ranks
    targets = np.full(ranks, share, dtype=np.int64)
    for _ in range(tokens.sum() - share * ranks):
        most = 0
        for rank in range(ranks):
            if tokens[rank] - targets[rank] > tokens[most] - targets[most]:
                most = rank
        targets[most] += 1
        tokens[most] = -1  # it has had its one
    return targets


@jit
def _range(start: int, stop: int, amount: int, grid: int, way: int) -> tuple[int, int]:
    """Return which tokens of [start, stop) to move, none or at most `amount`, in one of three ways.

    Way 0 is all of it; 1 from its head, 2 from its tail, keeping what stays on grid boundaries.
    """
    size = stop - start
    if way == 0:
        return (start, stop) if size <= amount else (start, start)
    tokens = amount // grid * grid if amount >= grid else amount
    if size <= tokens:
        return start, start
    if way == 1:
        upper = min((start + tokens + grid - 1) // grid * grid, stop)
        return upper - tokens, upper
    lower = (stop - tokens + grid - 1) // grid * grid
    return (lower, stop) if start < lower < stop else (start, start)


@jit
def _take(
    pool: Ints, first: Ints, free: Ints, counters: Ints, piece: int, lower: int, upper: int,
    rank: int, loads: Floats, weights: Floats, order: Ints, seen: Ints,
) -> tuple[int, int]:  # fmt: skip
    """Give [lower, upper) of a piece to `rank`, loads included.

    Returns:
        The new piece after the range, and the new piece that is the range; -1 where there is none.
    """
    document = pool[piece, DOCUMENT]
    giver = pool[piece, RANK]
    start = pool[piece, START]
    stop = pool[piece, STOP]
    add_exchange(pool, first, counters, document, -1.0, loads, order, seen)
    add_piece(loads, giver, start, stop, -1.0, weights)
    beyond = -1
    if upper < stop:
        beyond = move_part(pool, first, free, counters, piece, upper, False, giver)
        add_piece(loads, giver, upper, stop, 1.0, weights)
    at = lower if lower > start else -1
    part = move_part(pool, first, free, counters, piece, at, False, rank)
    if lower > start:
        add_piece(loads, giver, start, lower, 1.0, weights)
    add_piece(loads, rank, lower, upper, 1.0, weights)
    account_joins(pool, first, counters, document, loads, weights)
    add_exchange(pool, first, counters, document, 1.0, loads, order, seen)
    return beyond, part


@jit
def _give_back(
    pool: Ints, first: Ints, free: Ints, counters: Ints,
    piece: int, beyond: int, part: int, giver: int,
) -> None:  # fmt: skip
    """Undo `_take` but for loads and cuts."""
    move_back(pool, first, free, counters, piece, part, False, giver)
    if beyond >= 0:
        move_back(pool, first, free, counters, piece, beyond, False, giver)


@jit
def _energy(loads: Floats, cuts: int, weights: Floats) -> float:
    traffic = np.empty(loads.shape[0])
    excess = np.empty(loads.shape[0])
    strain(loads, _TOKEN_WEIGHT, weights, traffic, excess)
    return energy(loads, cuts, weights, traffic, excess)
