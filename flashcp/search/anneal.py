"""Betters a placement by moves between two ranks, a fixed number of steps.

Each step draws a piece of one rank, often of the one that is worst off, and one of six moves:

    swap    it changes places with a piece of another rank
    move    it goes to another rank
    slide   one end of it goes to the rank that holds the neighbouring piece of the document
    split   one end of it goes to another rank
    trade   the smaller of it and a piece of another rank goes over whole, and as many tokens of the
            larger come back
    bridge  a slide that is paid for: as many tokens come back, as a whole piece or by a second
            slide, so that work changes and tokens do not, and nothing new is cut

Cuts fall on multiples of the grid. A move stays if it raises the energy by no more than a random
leap times a temperature that sinks to nothing: simulated annealing. Leaps are 8 u^(-1/8) - 8 for u
uniform in (0, 1), which is close to -log(u) and takes square roots alone, which every machine rounds
alike, as logarithms are not. Draws are splitmix64 hashes of the step's number. Balance is checked
before the exchange is worked out: most moves fail there, at a tenth of the cost.
"""

import numpy as np

from flashcp.search.energy import balance_energy, energy, rank_excess, strain
from flashcp.search.loads import Floats, account_joins, add_exchange, add_piece
from flashcp.search.state import (
    CUTS,
    DOCUMENT,
    FREE,
    NEXT,
    PREVIOUS,
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
from flashcp.search.weights import LOADS, OWN, PAIRS, PIECE_WEIGHT, TILES, TIME_WEIGHT
from groundwork.jit import jit

# Of 256 draws, below which each kind of move is taken.
_SWAP, _MOVE, _SLIDE, _SPLIT, _TRADE = 50, 70, 110, 125, 176
_TRIES = 4  # draws of a piece that has a neighbour
_MOST_PARTS = 2  # pieces that a move adds


@jit
def anneal(
    pool: Ints, first: Ints, free: Ints, counters: Ints, lists: Ints, sizes: Ints,
    loads: Floats, weights: Floats, draws: Ints, grid: int, reserve: int,
    begin: int, steps: int, temperature: float, token_weight: float,
) -> float:  # fmt: skip
    """Take `steps` steps; the placement and its loads change in place.

    Args:
        pool, first, free, counters, lists, sizes: the placement.
        loads: [N, LOADS], in step with it.
        weights: of the pack.
        draws: hashes, int64 [draws], of which each step uses two; a power of two of them.
        grid: cuts are at multiples of so many tokens.
        reserve: pieces of the pool to leave alone.
        begin: number of the first step, so that stages draw differently.
        steps: how many.
        temperature: energy by which the first step may rise, on average; falls to 0.
        token_weight: see `flashcp.search.energy`.

    Returns:
        The energy at the end.
    """
    ranks = sizes.size
    saved = np.empty((ranks, LOADS))
    traffic = np.empty(ranks)
    excess = np.empty(ranks)
    order = np.empty(free.size, dtype=np.int64)
    seen = np.zeros(ranks, dtype=np.int64)
    counters[STAMP] = 0
    pieces = np.empty(2, dtype=np.int64)
    cuts = np.empty(2, dtype=np.int64)
    heads = np.empty(2, dtype=np.bool_)
    parts = np.empty(2, dtype=np.int64)
    sides = np.empty(2, dtype=np.int64)
    documents = np.empty(2, dtype=np.int64)
    leaps = np.empty(256)
    for i in range(256):
        leaps[i] = 8.0 / np.sqrt(np.sqrt(np.sqrt((i + 0.5) / 256.0))) - 8.0
    mask = draws.size - 1
    piece_weight = weights[PIECE_WEIGHT]
    worst = strain(loads, token_weight, weights, traffic, excess)
    now = energy(loads, counters[CUTS], weights, traffic, excess)
    for step in range(steps):
        where = 2 * (begin + step)
        # Beyond the table's end its entries are combined anew with those of another place.
        turn = draws[(where // draws.size * 7919) & mask]
        who = draws[where & mask] ^ turn
        how = draws[(where + 1) & mask] ^ turn
        moves = _draw(pool, lists, sizes, worst, grid, who, how, pieces, cuts, heads, sides)
        if moves == 0:
            continue
        one = sides[0]
        other = sides[1]
        room = lists.shape[1] - max(sizes[one], sizes[other])
        full = counters[FREE] < reserve + _MOST_PARTS and (cuts[0] >= 0 or cuts[1] >= 0)
        if full or room < _MOST_PARTS:
            continue
        cooled = 1.0 - step / steps
        limit = now + temperature * cooled * cooled * leaps[(how >> 40) & 0xFF]
        for column in range(OWN):
            saved[one, column] = loads[one, column]
            saved[other, column] = loads[other, column]
        added = 0
        for i in range(moves):
            added += _shift_loads(pool, loads, weights, pieces[i], cuts[i], heads[i], sides[1 - i])
        # Least that the energy can become: times are no better than undivided documents', and
        # joins take at most two pieces away for each part that moves.
        before_one, before_other = excess[one], excess[other]
        excess[one] = rank_excess(loads[one, PAIRS], loads[one, TILES], weights)
        excess[other] = rank_excess(loads[other, PAIRS], loads[other, TILES], weights)
        least = balance_energy(excess, weights) + weights[TIME_WEIGHT]
        least += piece_weight * (counters[CUTS] + added - 2 * moves)
        if least > limit:
            excess[one], excess[other] = before_one, before_other
            for column in range(OWN):
                loads[one, column] = saved[one, column]
                loads[other, column] = saved[other, column]
            continue
        for i in range(moves):
            documents[i] = pool[pieces[i], DOCUMENT]
        touched = moves
        if moves == 2 and documents[0] == documents[1]:
            touched = 1
        for rank in range(ranks):
            for column in range(OWN, LOADS):
                saved[rank, column] = loads[rank, column]
        cuts_before = counters[CUTS]
        for i in range(touched):
            add_exchange(pool, first, counters, documents[i], -1.0, loads, order, seen)
        for i in range(moves):
            parts[i] = move_part(
                pool, first, free, counters, pieces[i], cuts[i], heads[i], sides[1 - i]
            )
        for i in range(touched):
            account_joins(pool, first, counters, documents[i], loads, weights)
            add_exchange(pool, first, counters, documents[i], 1.0, loads, order, seen)
        then_worst = strain(loads, token_weight, weights, traffic, excess)
        then = energy(loads, counters[CUTS], weights, traffic, excess)
        if then > limit:
            for i in range(moves - 1, -1, -1):
                move_back(pool, first, free, counters, pieces[i], parts[i], heads[i], sides[i])
            counters[CUTS] = cuts_before
            excess[one], excess[other] = before_one, before_other
            for column in range(OWN):
                loads[one, column] = saved[one, column]
                loads[other, column] = saved[other, column]
            for rank in range(ranks):
                for column in range(OWN, LOADS):
                    loads[rank, column] = saved[rank, column]
            continue
        now = then
        worst = then_worst
        for i in range(moves):
            if parts[i] >= 0:
                enlist(pool, lists, sizes, parts[i])
            else:
                delist(pool, lists, sizes, pieces[i], sides[i])
                enlist(pool, lists, sizes, pieces[i])
        # Joins were counted when the loads were.
        joined = counters[CUTS]
        for i in range(touched):
            join_neighbours(pool, first, free, counters, lists, sizes, documents[i])
        counters[CUTS] = joined
    return now


@jit
def _draw(
    pool: Ints, lists: Ints, sizes: Ints, worst: int, grid: int, who: int, how: int,
    pieces: Ints, cuts: Ints, heads: Ints, sides: Ints,
) -> int:  # fmt: skip
    """Draw a move; returns how many pieces it moves, 0 if there is no such move.

    Args:
        pool, lists, sizes, grid: as for `anneal`.
        worst: the rank that half of the moves start from or lead to.
        who: 64 random bits that choose ranks and pieces.
        how: 64 random bits that choose the move.
        pieces: gets the pieces, [2].
        cuts: gets where each is cut, -1 where it moves whole, [2].
        heads: gets whether the part before the cut moves, [2].
        sides: gets the rank of each piece, which the other goes to, [2].
    """
    ranks = sizes.size
    one = ((who & 0xFFFF) * ranks) >> 16
    if how & 1:
        one = worst
    other = (((who >> 16) & 0xFFFF) * (ranks - 1)) >> 16
    if other >= one:
        other += 1
    if how & 2:
        one, other = other, one
    if sizes[one] == 0:
        return 0
    kind = (how >> 8) & 0xFF
    heads[0] = (how & 4) != 0
    heads[1] = (how & 8) != 0
    piece = _pick(pool, lists, sizes, one, (who >> 32) & 0xFFFF, heads[0], kind)
    pieces[0] = piece
    cuts[0] = -1
    cuts[1] = -1
    sides[0] = one
    sides[1] = other
    if kind < _SWAP or _SPLIT <= kind < _TRADE:
        if sizes[other] == 0:
            return 0
        pieces[1] = lists[other, (((who >> 48) & 0xFFFF) * sizes[other]) >> 16]
        if kind >= _SPLIT:
            _level(pool, pieces, cuts, heads, grid)
        return 2
    if kind < _MOVE:
        return 1
    start = pool[piece, START]
    stop = pool[piece, STOP]
    # Small parts as often as large ones: up to all, a quarter, a 16th or a 64th of the piece.
    tokens = (((how >> 16) & 0xFFFF) + 1) * (stop - start) >> (16 + 2 * ((how >> 4) & 3))
    tokens = max(tokens, grid)
    if _SLIDE <= kind < _SPLIT:
        cuts[0] = _cut(start, stop, tokens, heads[0], grid)
        return 1 if cuts[0] >= 0 else 0
    neighbour = pool[piece, PREVIOUS] if heads[0] else pool[piece, NEXT]
    if neighbour < 0:
        return 0
    other = pool[neighbour, RANK]
    sides[1] = other
    if kind < _SLIDE:
        cuts[0] = _cut(start, stop, tokens, heads[0], grid)
        return 1
    # A bridge: what comes back is a whole piece, or an end whose neighbour is on this side.
    back = lists[other, (((who >> 48) & 0xFFFF) * sizes[other]) >> 16]
    if back == neighbour:
        return 0
    pieces[1] = back
    size = pool[back, STOP] - pool[back, START]
    beside = pool[back, PREVIOUS] if heads[1] else pool[back, NEXT]
    if beside >= 0 and beside != piece and pool[beside, RANK] == one and tokens < size:
        cuts[1] = _cut(pool[back, START], pool[back, STOP], tokens, heads[1], grid)
        if cuts[1] >= 0:
            size = cuts[1] - pool[back, START] if heads[1] else pool[back, STOP] - cuts[1]
    if size >= stop - start:
        return 0
    cuts[0] = _cut(start, stop, size, heads[0], grid)
    return 2 if cuts[0] >= 0 else 0


@jit
def _pick(
    pool: Ints, lists: Ints, sizes: Ints, rank: int, chance: int, head: bool, kind: int
) -> int:
    """Draw one of a rank's pieces by 16 random bits; for slides, one with a neighbour if possible."""
    slot = (chance * sizes[rank]) >> 16
    piece = lists[rank, slot]
    if _MOVE <= kind < _SLIDE or kind >= _TRADE:
        for _ in range(_TRIES):
            if (pool[piece, PREVIOUS] if head else pool[piece, NEXT]) >= 0:
                break
            slot = (slot + 1) % sizes[rank]
            piece = lists[rank, slot]
    return int(piece)


@jit
def _cut(start: int, stop: int, tokens: int, head: bool, grid: int) -> int:
    """Return where to cut [start, stop) so that its head or tail has about `tokens`, else -1."""
    if head:
        at = (start + tokens + grid // 2) // grid * grid
    else:
        at = (stop - tokens + grid // 2) // grid * grid
    return at if start < at < stop else -1


@jit
def _level(pool: Ints, pieces: Ints, cuts: Ints, heads: Ints, grid: int) -> None:
    """Cut the larger of two pieces so that about equal tokens change places."""
    sizes0 = pool[pieces[0], STOP] - pool[pieces[0], START]
    sizes1 = pool[pieces[1], STOP] - pool[pieces[1], START]
    larger = 0 if sizes0 > sizes1 else 1
    piece = pieces[larger]
    tokens = min(sizes0, sizes1)
    cuts[larger] = _cut(pool[piece, START], pool[piece, STOP], tokens, heads[larger], grid)


@jit
def _shift_loads(
    pool: Ints, loads: Floats, weights: Floats, piece: int, cut: int, head: bool, rank: int
) -> int:
    """Account for a part's move to `rank`, without its exchange; returns the pieces it adds."""
    start = pool[piece, START]
    stop = pool[piece, STOP]
    here = pool[piece, RANK]
    add_piece(loads, here, start, stop, -1.0, weights)
    if cut < 0:
        add_piece(loads, rank, start, stop, 1.0, weights)
        return 0
    if head:
        add_piece(loads, rank, start, cut, 1.0, weights)
        add_piece(loads, here, cut, stop, 1.0, weights)
    else:
        add_piece(loads, here, start, cut, 1.0, weights)
        add_piece(loads, rank, cut, stop, 1.0, weights)
    return 1
