"""Gives every rank exactly its tokens, C / N give or take one.

The search keeps tokens only nearly equal. Here the rank with the largest surplus gives to the one
that lacks most: a whole piece, or the head, the tail or a range near the head of one, whichever
leaves the lowest energy. What is less than a tile comes out of the first tile of a piece and leaves
the rest of the piece on a tile boundary: [0, x) stays, [x, 128) goes, [128, ...) stays. That costs
one tile and at most 127 tokens of traffic; after a plain cut at x all later rows would walk one
tile more.
"""

import numpy as np

from flashcp.search.energy import energy, strain
from flashcp.search.foresight import KEPT, are_apart, energy_after, keep
from flashcp.search.loads import Floats, account_joins, add_exchange, add_piece, pairs_of
from flashcp.search.moves import LOWER, MOVE, PIECE, SIDE, UPPER
from flashcp.search.state import (
    CUTS,
    DOCUMENT,
    RANK,
    SIZE,
    START,
    STOP,
    Ints,
    enlist,
    join_neighbours,
    move_back,
    move_part,
    relist,
)
from flashcp.search.weights import TOKENS
from groundwork.jit import jit, jit_as, jit_lean

_TOKEN_WEIGHT = 2.0  # of what later steps of the repair will move
CUTS_A_RANK = 12  # most pieces that the repair adds, a rank
_WAYS = 3  # of taking tokens from a piece
_ROOM = 4  # pieces that a step may add to a list


@jit
def _targets(loads: Floats) -> Ints:
    """Return how many tokens each rank shall hold; those with most now get what does not divide."""
    ranks = loads.shape[0]
    tokens = np.empty(ranks, dtype=np.int64)
    total = 0
    for rank in range(ranks):
        tokens[rank] = int(loads[rank, TOKENS])
        total += tokens[rank]
    share = total // ranks
    targets = np.full(ranks, share, dtype=np.int64)
    for _ in range(total - share * ranks):
        most = 0
        for rank in range(ranks):
            if tokens[rank] > tokens[most]:
                most = rank
        targets[most] += 1
        tokens[most] = -1  # it has had its one
    return targets


@jit_lean
def _range(start: int, stop: int, amount: int, grid: int, way: int) -> tuple[int, int]:
    """Return which tokens of [start, stop) to move, none or at most `amount`, in one of three ways.

    Way 0 is all of it; 1 from its head, 2 from its tail, keeping what stays on grid boundaries.
    """
    size = stop - start
    if way == 0:
        return (start, stop) if size <= amount else (start, start)
    tokens = amount & -grid if amount >= grid else amount
    if size <= tokens:
        return start, start
    if way == 1:
        upper = min((start + tokens + grid - 1) & -grid, stop)
        return upper - tokens, upper
    lower = (stop - tokens + grid - 1) & -grid
    return (lower, stop) if start < lower < stop else (start, start)


@jit_as(
    "UniTuple(i8, 2)(i8[:, ::1], i8[::1], i8[::1], i8[:, ::1], i8, i8, i8, i8, f8[:, ::1],f8[::1])",
    lean=True,
)
def _take(
    pool: Ints, first: Ints, counters: Ints, ranks: Ints,
    piece: int, lower: int, upper: int, taker: int, loads: Floats, weights: Floats,
) -> tuple[int, int]:  # fmt: skip
    """Give [lower, upper) of a piece to `taker`, loads included.

    Returns:
        The new piece after the range, and the new piece that is the range; -1 where there is none.
    """
    document = pool[piece, DOCUMENT]
    giver = pool[piece, RANK]
    start = pool[piece, START]
    stop = pool[piece, STOP]
    add_exchange(pool, first, counters, ranks, document, -1.0, loads)
    add_piece(loads, giver, start, stop, -1.0, weights)
    beyond = -1
    if upper < stop:
        beyond = move_part(pool, first, counters, piece, upper, False, giver)
        add_piece(loads, giver, upper, stop, 1.0, weights)
    part = move_part(pool, first, counters, piece, lower if lower > start else -1, False, taker)
    if lower > start:
        add_piece(loads, giver, start, lower, 1.0, weights)
    add_piece(loads, taker, lower, upper, 1.0, weights)
    account_joins(pool, first, counters, document, loads, weights)
    add_exchange(pool, first, counters, ranks, document, 1.0, loads)
    return beyond, part


@jit_as(
    "UniTuple(i8, 3)(i8[:, ::1], i8[::1], i8[::1], i8[:, ::1], i8[:, ::1], "
    "f8[:, ::1], f8[::1], i8, i8, i8, i8, b1)"
)
def _choose(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints,
    loads: Floats, weights: Floats, grid: int, giver: int, taker: int, amount: int, apart: bool,
) -> tuple[int, int, int]:  # fmt: skip
    """Return the piece of `giver` and the range of it that leave the lowest energy with `taker`.

    What is foreseen to leave more than the best so far is not tried (`flashcp.search.foresight`).
    """
    traffic = np.empty(loads.shape[0])
    excess = np.empty(loads.shape[0])
    saved = loads.copy()
    kept = np.empty((loads.shape[0] + 1, KEPT))
    touched = np.empty(loads.shape[0], dtype=np.int64)
    move = np.empty((2, MOVE), dtype=np.int64)
    move[0, SIDE], move[1, SIDE] = giver, taker
    strain(loads, _TOKEN_WEIGHT, weights, traffic, excess)
    exchange_us = keep(loads, traffic, excess, weights, kept)
    cuts = counters[CUTS]
    best = -1
    best_lower, best_upper = 0, 0
    least = np.inf
    for slot in range(ranks[giver, SIZE]):
        piece = lists[giver, slot]
        for way in range(_WAYS):
            lower, upper = _range(pool[piece, START], pool[piece, STOP], amount, grid, way)
            if upper <= lower:
                continue
            if apart and best >= 0:
                move[0, PIECE], move[0, LOWER], move[0, UPPER] = piece, lower, upper
                bound = energy_after(
                    pool, counters, ranks, loads, weights, 1, move, pairs_of(lower, upper),
                    upper - lower, _TOKEN_WEIGHT, exchange_us, kept, saved, touched,
                )  # fmt: skip
                if bound >= least:
                    continue
            beyond, part = _take(
                pool, first, counters, ranks, piece, lower, upper, taker, loads, weights
            )
            strain(loads, _TOKEN_WEIGHT, weights, traffic, excess)
            value = energy(loads, counters[CUTS], weights, traffic, excess)
            move_back(pool, first, counters, piece, part, False, giver)
            if beyond >= 0:
                move_back(pool, first, counters, piece, beyond, False, giver)
            loads[:, :] = saved
            counters[CUTS] = cuts
            if value < least:
                least = value
                best = piece
                best_lower, best_upper = lower, upper
    return best, best_lower, best_upper


@jit
def repair(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints,
    loads: Floats, weights: Floats, grid: int,
) -> None:  # fmt: skip
    """Move tokens until all ranks hold equal ones.

    Ends because every step moves tokens from a surplus to a lack and overshoots neither.

    Args:
        pool: the placement's, with room for CUTS_A_RANK pieces a rank; as the next four, changed.
        first: the placement's.
        counters: the placement's.
        lists: the placement's; out of step afterwards.
        ranks: the placement's; out of step afterwards.
        loads: [N, LOADS], in step with the placement.
        weights: of the pack.
        grid: cuts are at multiples of so many tokens where that is possible.
    """
    targets = _targets(loads)
    apart = are_apart(pool, first)
    while True:
        giver = 0
        taker = 0
        for rank in range(1, targets.size):
            if loads[rank, TOKENS] - targets[rank] > loads[giver, TOKENS] - targets[giver]:
                giver = rank
            if loads[rank, TOKENS] - targets[rank] < loads[taker, TOKENS] - targets[taker]:
                taker = rank
        surplus = int(loads[giver, TOKENS]) - targets[giver]
        if surplus <= 0:
            return
        amount = min(surplus, targets[taker] - int(loads[taker, TOKENS]))
        if lists.shape[1] - max(ranks[giver, SIZE], ranks[taker, SIZE]) < _ROOM:
            grown = np.full((targets.size, 2 * lists.shape[1]), -1, dtype=np.int64)
            grown[:, : lists.shape[1]] = lists
            lists = grown
        piece, lower, upper = _choose(
            pool, first, counters, lists, ranks, loads, weights, grid, giver, taker, amount, apart
        )
        document = pool[piece, DOCUMENT]
        beyond, part = _take(
            pool, first, counters, ranks, piece, lower, upper, taker, loads, weights
        )
        if beyond >= 0:
            enlist(pool, lists, ranks, beyond)
        relist(pool, lists, ranks, piece, part, giver)
        join_neighbours(pool, first, counters, lists, ranks, document)
