"""Runs the search from lengths to a finished placement: seed, stages of annealing, repair, evening.

A first stage is warm and lets tokens and work differ for some cost, so that long documents find
their ranks; the next two make that dear. Then tokens are made equal, which costs balance, and work
is evened out without touching tokens, which regains it. Where the largest rank still has more than
0.5% over the mean, the last stage goes on from the finished placement, whose tokens are equal, up
to twice; each end is a candidate. Where ranks span nodes it goes on, twice, once they have their
nodes and what crosses these counts: on two nodes of 8 plans take 2 to 11% less than without.
Measured effects of each part: docs/research/auto.md.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.search.anneal import anneal
from flashcp.search.cycles import even_out
from flashcp.search.energy import busy_us, time_energy
from flashcp.search.loads import Floats
from flashcp.search.repair import CUTS_A_RANK, repair
from flashcp.search.seed import adopt, seed
from flashcp.search.state import CUTS, Ints, copy_rows
from flashcp.search.weights import (
    BALANCE_WEIGHT,
    EVENS_TIME,
    PAIRS,
    TILE,
    TILE_US,
)
from flashcp.strategies.flashcp import flashcp_shards
from groundwork.jit import jit
from traces.hashing import hashes

if TYPE_CHECKING:
    from flashcp.strategies._shards import Rows

STEPS_A_RANK = 850  # of one unit of effort, up to 8 ranks
_SEED = 20261124
_DRAWS = 1 << 16
_ANNEALED_CUTS_A_RANK = 8  # most pieces that annealing adds, a rank
EVEN = 1.005  # work of the largest rank over the mean that is good enough
_MOST_TURNS = 2  # more of the last stage where it is not; one where times are evened out
_RANKS_AND_TURNS = 24  # most ranks times turns
_NODE_TURNS = 2  # of the last stage where what crosses nodes counts
_LEAST_TILES_A_RANK = 16  # ranks of fewer are cut on a finer grid

# Share of the steps, temperature, token weight and balance weight of each stage.
_STAGES = np.array(
    [
        [0.25, 0.0010, 5.0, 1.0],
        [0.35, 0.0003, 30.0, 4.0],
        [0.40, 0.0002, 30.0, 25.0],
    ]
)
_EVENING_TIME = 4.0  # balance weight of the last stage where times are evened out, not work


def find_placements(
    lengths: NDArray[np.int32],
    cp: int,
    weights: Floats,
    effort: float,
    *,
    others: "Rows | None" = None,
    again: bool = True,
) -> "list[Rows]":
    """Search for placements of one pack with equal tokens.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        weights: from `flashcp.search.weights.search_weights`, which say what is evened out.
        effort: budget in units of STEPS_A_RANK steps a rank, fewer beyond 8 ranks; 0 only seeds
            and repairs.
        others: FlashCP's canonical shards of the pack, to start from as well; None makes them.
        again: whether the last stage goes on where work is uneven; at most twice up to 12
            ranks, once up to 24, not beyond, where it would take too long.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop; of one or more placements.
        The same ones, but for the documents' numbers, whatever the documents' order.
    """
    order = _falling(lengths)
    if others is None:
        others = flashcp_shards(lengths, cp)
    whole = _listed(others, order)
    falling = lengths[order].astype(np.int64)
    rows = _search(
        falling, cp, weights.copy(), _draws(), _grid(lengths, cp), _steps(effort, cp),
        _stages(weights), whole,
    )  # fmt: skip
    found = [rows]
    most_turns = 1 if weights[EVENS_TIME] else _MOST_TURNS
    turns = min(most_turns, _RANKS_AND_TURNS // cp) if again else 0
    for turn in range(turns):
        if imbalance(rows, cp) <= EVEN:
            break
        rows = _another_turn(rows.astype(np.int64), lengths, cp, 0, weights, effort, turn)
        found.append(rows)
    if turns and imbalance(whole, cp) > EVEN:
        slowest = min(_slowness(each.astype(np.int64), order.size, cp, weights) for each in found)
        if _slowness(whole, order.size, cp, weights) < slowest:
            found.append(_another_turn(whole, lengths, cp, 0, weights, effort, 0))
    return [_canonical(rows, order) for rows in found]


def settle_on_nodes(
    rows: "Rows",
    lengths: NDArray[np.int32],
    cp: int,
    ranks_per_node: int,
    weights: Floats,
    effort: float,
) -> "list[Rows]":
    """Go on from a placement whose ranks have their nodes, now that what crosses these counts.

    Args:
        rows: canonical shards, int32 [shards, 4].
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node; divides `cp`.
        weights: with the time of what crosses nodes.
        effort: as for `find_placements`.

    Returns:
        Canonical shards after each turn of the last stage.
    """
    order = _falling(lengths)
    found = []
    for turn in range(1, 1 + _NODE_TURNS):
        listed = _listed(rows, order)
        rows = _another_turn(listed, lengths, cp, ranks_per_node, weights, effort, turn)
        rows = _canonical(rows, order)
        found.append(rows)
    return found


def _another_turn(
    listed: Ints,
    lengths: NDArray[np.int32],
    cp: int,
    per_node: int,
    weights: Floats,
    effort: float,
    turn: int,
) -> "Rows":
    """Run the last stage once more, from shards as `_listed` gives them; returns them likewise.

    `per_node` is 0 where what crosses nodes does not count; every turn draws differently.
    """
    steps = _steps(effort, cp)
    return _go_on(
        listed, lengths.size, cp, per_node, weights.copy(), _draws(), _grid(lengths, cp),
        turn * steps, steps, _stages(weights)[-1],
    )  # fmt: skip


def _falling(lengths: NDArray[np.int32]) -> Ints:
    """Return the documents by falling length, which is how a search numbers them."""
    return np.argsort(-lengths.astype(np.int64), kind="stable")


def _listed(rows: "Rows", order: Ints) -> Ints:
    """Return shards in order of document, as a search numbers them, and start."""
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    listed = rows.astype(np.int64)
    listed[:, 1] = place[listed[:, 1]]
    return listed[np.lexsort((listed[:, 2], listed[:, 1]))]


def _canonical(rows: "Rows", order: Ints) -> "Rows":
    """Return a search's shards with the pack's numbers of documents, in canonical order."""
    rows[:, 1] = order[rows[:, 1]]
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


def _stages(weights: Floats) -> Floats:
    """Return the stages by what is to be even."""
    stages = _STAGES.copy()
    if weights[EVENS_TIME] != 0.0:
        stages[-1, 3] = _EVENING_TIME
    return stages


def imbalance(rows: "Rows | Ints", cp: int) -> float:
    """Return the largest rank's work over the mean."""
    sizes = (rows[:, 3] - rows[:, 2]).astype(np.float64)
    work = np.bincount(rows[:, 0], sizes * (rows[:, 2] + rows[:, 3] + 1.0), cp)
    return float(work.max() / work.mean())


@jit
def _slowness(rows: Ints, documents: int, cp: int, weights: Floats) -> float:
    """Return the energy of the times of shards in order of document and start."""
    return time_energy(adopt(rows, documents, cp, 0, rows.shape[0], weights)[5], weights)


def _steps(effort: float, cp: int) -> int:
    """Return the budget; with many ranks a step takes longer, and there are fewer a rank."""
    return int(effort * STEPS_A_RANK * cp / np.sqrt(max(cp / 8, 1.0)))


@cache
def _draws() -> Ints:
    return hashes(_SEED, _DRAWS).view(np.int64)


def _grid(lengths: NDArray[np.int32], cp: int) -> int:
    """Return the largest power of two up to a tile of which a rank holds enough."""
    tokens = int(lengths.sum(dtype=np.int64)) // cp
    grid = TILE
    while grid > 1 and tokens < grid * _LEAST_TILES_A_RANK:
        grid //= 2
    return grid


@jit
def _search(
    lengths: Ints, cp: int, weights: Floats, draws: Ints, grid: int, steps: int, stages: Floats,
    others: Ints,
) -> "Rows":  # fmt: skip
    """Search for one pack whose documents are sorted by falling length; see `find_placements`.

    The first stage runs from up to three placements, and the best goes on: giants cut in parts of
    equal work, giants folded, another strategy's shards. Where nothing needs cutting, the first.
    """
    reserve = CUTS_A_RANK * cp
    pieces = max(lengths.size + _ANNEALED_CUTS_A_RANK * cp, others.shape[0]) + reserve
    trial = best = seed(lengths, cp, pieces, grid, False, weights)
    begin = 0
    least = np.inf
    rivals = 3 if best[2][CUTS] > 0 and cp > 1 else 1
    weights[BALANCE_WEIGHT] = stages[0, 3]
    count = int(steps * stages[0, 0]) // rivals
    for rival in range(rivals):
        if rival == 2:
            trial = adopt(others, lengths.size, cp, 0, pieces, weights)
        elif rival == 1:
            trial = seed(lengths, cp, pieces, grid, True, weights)
        pool, first, counters, lists, ranks, loads = trial
        if cp > 1:
            level = anneal(
                pool, first, counters, lists, ranks, loads, weights, draws, grid, reserve,
                begin, count, stages[0, 1], stages[0, 2],
            )  # fmt: skip
            begin += count
            if level >= least:
                continue
            least = level
        best = trial
    pool, first, counters, lists, ranks, loads = best
    for stage in range(1, stages.shape[0] if cp > 1 else 0):
        weights[BALANCE_WEIGHT] = stages[stage, 3]
        count = int(steps * stages[stage, 0])
        anneal(
            pool, first, counters, lists, ranks, loads, weights, draws, grid, reserve,
            begin, count, stages[stage, 1], stages[stage, 2],
        )  # fmt: skip
        begin += count
    return _finish(pool, first, counters, lists, ranks, loads, weights, draws, grid)


@jit
def _go_on(
    rows: Ints, documents: int, cp: int, per_node: int, weights: Floats, draws: Ints, grid: int,
    begin: int, steps: int, stage: Floats,
) -> "Rows":  # fmt: skip
    """Run one stage from shards in order of document and start; returns shards in that order."""
    reserve = CUTS_A_RANK * cp
    pieces = rows.shape[0] + _ANNEALED_CUTS_A_RANK * cp + reserve
    pool, first, counters, lists, ranks, loads = adopt(
        rows, documents, cp, per_node, pieces, weights
    )
    weights[BALANCE_WEIGHT] = stage[3]
    anneal(
        pool, first, counters, lists, ranks, loads, weights, draws, grid, reserve,
        begin, int(steps * stage[0]), stage[1], stage[2],
    )  # fmt: skip
    return _finish(pool, first, counters, lists, ranks, loads, weights, draws, grid)


@jit
def _finish(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints, loads: Floats,
    weights: Floats, draws: Ints, grid: int,
) -> "Rows":  # fmt: skip
    """Make tokens equal and work or time even; returns shards in order of document and start."""
    repair(pool, first, counters, lists, ranks, loads, weights, grid)
    work = loads[:, PAIRS].copy()
    if weights[EVENS_TIME] != 0.0:
        # In pairs that would take as long: a cut that moves changes little else.
        pair_us = weights[TILE_US] / TILE**2
        for rank in range(work.size):
            work[rank] = busy_us(loads, rank, weights) / pair_us
    even_out(pool, first, work, grid, draws)
    rows = np.empty((pool.shape[0], 4), dtype=np.int32)
    count = copy_rows(pool, first, rows)
    return rows[:count].copy()
