"""Betters a placement by simulated annealing over moves between two ranks, a fixed number of steps.

A move stays if it raises the energy by no more than a random leap times a temperature that sinks
to nothing. Leaps are 8 u^(-1/8) - 8 for u uniform in (0, 1): close to -log(u), but made of square
roots alone, which every machine rounds alike as it does not logarithms. Draws are splitmix64 hashes
of the step's number. What a move does to pairs and tokens is checked before pieces and exchange are
touched: nearly half of the moves fail there, at a fraction of the cost; three to five in a hundred
stay.
"""

import numpy as np

from flashcp.search.energy import energy, least_energy, strain, sum_of_squares
from flashcp.search.foresight import KEPT, are_apart, energy_after, keep
from flashcp.search.loads import Floats, account_joins, add_exchange, pairs_of, shift_part
from flashcp.search.moves import CUT, HEAD, LOWER, MOVE, PART, PIECE, SIDE, UPPER, draw_move
from flashcp.search.state import (
    CUTS,
    DOCUMENT,
    FREE,
    SIZE,
    START,
    STOP,
    Ints,
    join_neighbours,
    move_back,
    move_part,
    relist,
)
from flashcp.search.weights import LOADS, PIECE_WEIGHT
from groundwork.jit import jit_as, jit_lean

_MOST_PARTS = 2  # pieces that a move adds


@jit_lean
def _copy(loads: Floats, to: Floats) -> None:
    """Copy loads; a loop takes a third of the time of an assignment to a slice."""
    for rank in range(loads.shape[0]):
        for column in range(LOADS):
            to[rank, column] = loads[rank, column]


@jit_lean
def _has_room(
    counters: Ints, lists: Ints, ranks: Ints, reserve: int, moves: int, move: Ints
) -> bool:
    """Tell whether the pool and both ranks' lists have room for a move."""
    longest = max(ranks[move[0, SIDE], SIZE], ranks[move[1, SIDE], SIZE])
    if lists.shape[1] - longest < _MOST_PARTS:
        return False
    cuts = move[0, CUT] >= 0 or (moves == 2 and move[1, CUT] >= 0)
    return bool(not cuts or counters[FREE] >= reserve + _MOST_PARTS)


@jit_lean
def _difference(pool: Ints, moves: int, move: Ints) -> tuple[float, int]:
    """Return the pairs and tokens that a move takes from the first rank to the second.

    Writes down which tokens of each piece move.
    """
    pairs, tokens = 0.0, 0
    for i in range(moves):
        start, stop = pool[move[i, PIECE], START], pool[move[i, PIECE], STOP]
        if move[i, CUT] >= 0:
            if move[i, HEAD]:
                stop = move[i, CUT]
            else:
                start = move[i, CUT]
        move[i, LOWER], move[i, UPPER] = start, stop
        sign = 1 - 2 * i
        pairs += sign * pairs_of(start, stop)
        tokens += sign * (stop - start)
    return pairs, tokens


@jit_lean
def _make(
    pool: Ints, first: Ints, counters: Ints, ranks: Ints,
    loads: Floats, weights: Floats, moves: int, move: Ints,
) -> None:  # fmt: skip
    """Make a move, loads included; what it makes neighbours is counted as joined but is not yet."""
    document = pool[move[0, PIECE], DOCUMENT]
    second = pool[move[moves - 1, PIECE], DOCUMENT]
    add_exchange(pool, first, counters, ranks, document, -1.0, loads)
    if second != document:
        add_exchange(pool, first, counters, ranks, second, -1.0, loads)
    for i in range(moves):
        piece, cut, head, rank = move[i, PIECE], move[i, CUT], move[i, HEAD] != 0, move[1 - i, SIDE]
        shift_part(pool, loads, weights, piece, cut, head, rank)
        move[i, PART] = move_part(pool, first, counters, piece, cut, head, rank)
    account_joins(pool, first, counters, document, loads, weights)
    add_exchange(pool, first, counters, ranks, document, 1.0, loads)
    if second != document:
        account_joins(pool, first, counters, second, loads, weights)
        add_exchange(pool, first, counters, ranks, second, 1.0, loads)


@jit_lean
def _take_steps(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints,
    loads: Floats, weights: Floats, draws: Ints, grid: int, reserve: int,
    begin: int, steps: int, temperature: float, token_weight: float,
    saved: Floats, traffic: Floats, excess: Floats, trial: Floats, kept: Floats, touched: Ints,
    move: Ints, leaps: Floats,
) -> float:  # fmt: skip
    """Take the steps of `anneal`, with its arguments and room to work in."""
    worst = strain(loads, token_weight, weights, traffic, excess)
    now = energy(loads, counters[CUTS], weights, traffic, excess)
    squares = sum_of_squares(excess)
    exchange_us = keep(loads, traffic, excess, weights, kept)
    foreseen = are_apart(pool, first)
    mask = draws.size - 1
    turn = 0
    for step in range(steps):
        where = 2 * (begin + step)
        if where & mask == 0 or step == 0:
            # Beyond the table's end its entries are combined anew with those of another place.
            turn = draws[(where // draws.size * 7919) & mask]
        how = draws[(where + 1) & mask] ^ turn
        moves = draw_move(
            pool, lists, ranks, loads, worst, grid, draws[where & mask] ^ turn, how, move
        )
        if moves == 0 or not _has_room(counters, lists, ranks, reserve, moves, move):
            continue
        cooled = 1.0 - step / steps
        limit = now + temperature * cooled * cooled * leaps[(how >> 40) & 0xFF]
        pairs, tokens = _difference(pool, moves, move)
        one, other = move[0, SIDE], move[1, SIDE]
        others = squares - excess[one] * excess[one] - excess[other] * excess[other]
        # Joins take at most two pieces away for each part that moves.
        least = weights[PIECE_WEIGHT] * (counters[CUTS] - 2 * moves)
        least += least_energy(
            loads, one, other, pairs, tokens, max(others, 0.0), token_weight, weights
        )
        if least > limit:
            continue
        if foreseen and (
            moves == 1 or pool[move[0, PIECE], DOCUMENT] != pool[move[1, PIECE], DOCUMENT]
        ):
            least = energy_after(
                pool, counters, ranks, loads, weights, moves, move, pairs, tokens, token_weight,
                exchange_us, kept, saved, touched,
            )  # fmt: skip
            if least > limit:
                continue
        cuts = counters[CUTS]
        _make(pool, first, counters, ranks, loads, weights, moves, move)
        then_worst = strain(loads, token_weight, weights, traffic, trial)
        then = energy(loads, counters[CUTS], weights, traffic, trial)
        if then > limit:
            for i in range(moves - 1, -1, -1):
                move_back(
                    pool, first, counters,
                    move[i, PIECE], move[i, PART], move[i, HEAD] != 0, move[i, SIDE],
                )  # fmt: skip
            counters[CUTS] = cuts
            _copy(saved, loads)
            continue
        now, worst = then, then_worst
        excess, trial = trial, excess
        squares = sum_of_squares(excess)
        exchange_us = keep(loads, traffic, excess, weights, kept)
        _copy(loads, saved)
        for i in range(moves):
            relist(pool, lists, ranks, move[i, PIECE], move[i, PART], move[i, SIDE])
        for i in range(moves):
            join_neighbours(pool, first, counters, lists, ranks, pool[move[i, PIECE], DOCUMENT])
    return now


@jit_as(
    "f8(i8[:, ::1], i8[::1], i8[::1], i8[:, ::1], i8[:, ::1], "
    "f8[:, ::1], f8[::1], i8[::1], i8, i8, i8, i8, f8, f8)"
)
def anneal(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints,
    loads: Floats, weights: Floats, draws: Ints, grid: int, reserve: int,
    begin: int, steps: int, temperature: float, token_weight: float,
) -> float:  # fmt: skip
    """Take `steps` steps; the placement and its loads change in place.

    Args:
        pool: the placement's, as the next four; see `flashcp.search.state`.
        first: the placement's.
        counters: the placement's.
        lists: the placement's.
        ranks: the placement's.
        loads: [N, LOADS], in step with the placement.
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
    count = ranks.shape[0]
    saved = loads.copy()
    traffic = np.empty(count)
    excess = np.empty(count)
    trial = np.empty(count)  # the excess after a move that may not stay
    kept = np.empty((count + 1, KEPT))
    touched = np.empty(count, dtype=np.int64)
    move = np.empty((2, MOVE), dtype=np.int64)
    leaps = 8.0 / np.sqrt(np.sqrt(np.sqrt((np.arange(256) + 0.5) / 256.0))) - 8.0
    return _take_steps(
        pool, first, counters, lists, ranks, loads, weights, draws, grid, reserve, begin, steps,
        temperature, token_weight, saved, traffic, excess, trial, kept, touched, move, leaps,
    )  # fmt: skip
