"""Runs the search from lengths to a finished placement: seed, stages of annealing, repair.

A first stage is warm and lets tokens differ for some cost, so that long documents find their ranks;
the next makes differing tokens and work dear. Measured
effects of each part: docs/research/auto.md.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.search.anneal import anneal
from flashcp.search.loads import Floats
from flashcp.search.repair import CUTS_A_RANK, repair
from flashcp.search.seed import seed
from flashcp.search.state import CUTS, Ints, copy_rows
from flashcp.search.weights import BALANCE_WEIGHT, TILE
from groundwork.jit import jit
from traces.hashing import hashes

if TYPE_CHECKING:
    from flashcp.strategies._shards import Rows

STEPS_A_RANK = 1200  # of one unit of effort
_SEED = 20261124
_DRAWS = 1 << 16
_ANNEALED_CUTS_A_RANK = 8  # most pieces that annealing adds, a rank
_LEAST_TILES_A_RANK = 16  # ranks of fewer are cut on a finer grid

# Share of the steps, temperature, token weight and balance weight of each stage.
_STAGES = np.array(
    [
        [0.45, 0.0020, 5.0, 2.0],
        [0.35, 0.0007, 30.0, 4.0],
        [0.20, 0.0001, 30.0, 20.0],
    ]
)


def find_placement(lengths: NDArray[np.int32], cp: int, weights: Floats, effort: float) -> "Rows":
    """Search for a placement of one pack with equal tokens.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        weights: from `flashcp.search.weights.search_weights`.
        effort: budget in units of STEPS_A_RANK steps a rank; 0 only seeds and repairs.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop. The same placement, but
        for the documents' numbers, whatever the documents' order.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    rows = _search(
        lengths[order].astype(np.int64),
        cp,
        weights.copy(),
        _draws(),
        _grid(int(lengths.sum(dtype=np.int64)) // cp),
        int(effort * STEPS_A_RANK * cp),
        _STAGES,
    )
    rows[:, 1] = order[rows[:, 1]]
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


@cache
def _draws() -> Ints:
    return hashes(_SEED, _DRAWS).view(np.int64)


def _grid(tokens: int) -> int:
    """Return the largest power of two up to a tile of which a rank holds enough."""
    grid = TILE
    while grid > 1 and tokens < grid * _LEAST_TILES_A_RANK:
        grid //= 2
    return grid


@jit
def _search(
    lengths: Ints, cp: int, weights: Floats, draws: Ints, grid: int, steps: int, stages: Floats
) -> "Rows":
    """Search for one pack whose documents are sorted by falling length; see `find_placement`."""
    reserve = CUTS_A_RANK * cp
    pieces = lengths.size + _ANNEALED_CUTS_A_RANK * cp + reserve
    pool, first, counters, lists, ranks, loads = seed(lengths, cp, pieces, grid, False, weights)
    begin = 0
    for stage in range(stages.shape[0] if cp > 1 else 0):
        weights[BALANCE_WEIGHT] = stages[stage, 3]
        count = int(steps * stages[stage, 0])
        # Where documents are cut, the two ways to cut giants share the first stage's steps.
        rivals = stage == 0 and counters[CUTS] > 0
        if rivals:
            count //= 2
        level = anneal(
            pool, first, counters, lists, ranks, loads, weights, draws, grid, reserve,
            begin, count, stages[stage, 1], stages[stage, 2],
        )  # fmt: skip
        begin += count
        if not rivals:
            continue
        pool2, first2, counters2, lists2, ranks2, loads2 = seed(
            lengths, cp, pieces, grid, True, weights
        )
        level2 = anneal(
            pool2, first2, counters2, lists2, ranks2, loads2, weights, draws, grid, reserve,
            begin, count, stages[stage, 1], stages[stage, 2],
        )  # fmt: skip
        begin += count
        if level2 < level:
            pool, first, counters = pool2, first2, counters2
            lists, ranks, loads = lists2, ranks2, loads2
    repair(pool, first, counters, lists, ranks, loads, weights, grid)
    rows = np.empty((pieces, 4), dtype=np.int32)
    count = copy_rows(pool, first, rows)
    return rows[:count].copy()
