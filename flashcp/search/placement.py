"""Runs the search from lengths to a finished placement: seed, stages of annealing, repair, evening.

A first stage is warm and lets tokens and work differ for some cost, so that long documents find
their ranks; the next two make that dear. Then tokens are made equal, which costs balance, and work
is evened out without touching tokens, which regains it. Measured effects of each part:
docs/research/auto.md.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flashcp.search.anneal import anneal
from flashcp.search.cycles import even_out
from flashcp.search.loads import Floats
from flashcp.search.repair import CUTS_A_RANK, repair
from flashcp.search.seed import adopt, seed
from flashcp.search.state import CUTS, Ints, copy_rows
from flashcp.search.weights import BALANCE_WEIGHT, PAIRS, TILE
from flashcp.strategies.flashcp import flashcp_shards
from groundwork.jit import jit
from traces.hashing import hashes

if TYPE_CHECKING:
    from flashcp.strategies._shards import Rows

STEPS_A_RANK = 850  # of one unit of effort, up to 8 ranks
_SEED = 20261124
_DRAWS = 1 << 16
_ANNEALED_CUTS_A_RANK = 8  # most pieces that annealing adds, a rank
_LEAST_TILES_A_RANK = 16  # ranks of fewer are cut on a finer grid

# Share of the steps, temperature, token weight and balance weight of each stage.
_STAGES = np.array(
    [
        [0.25, 0.0010, 5.0, 1.0],
        [0.35, 0.0003, 30.0, 4.0],
        [0.40, 0.0002, 30.0, 25.0],
    ]
)


def find_placement(
    lengths: NDArray[np.int32],
    cp: int,
    weights: Floats,
    effort: float,
    *,
    others: "Rows | None" = None,
) -> "Rows":
    """Search for a placement of one pack with equal tokens.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        weights: from `flashcp.search.weights.search_weights`.
        effort: budget in units of STEPS_A_RANK steps a rank, fewer beyond 8 ranks; 0 only seeds
            and repairs.
        others: FlashCP's canonical shards of the pack, to start from as well; None makes them.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop. The same placement, but
        for the documents' numbers, whatever the documents' order.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    falling = lengths[order]
    if others is None:
        others = flashcp_shards(lengths, cp)
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    others = others.copy()
    others[:, 1] = place[others[:, 1]]
    rows = _search(
        falling.astype(np.int64),
        cp,
        weights.copy(),
        _draws(),
        _grid(int(lengths.sum(dtype=np.int64)) // cp),
        _steps(effort, cp),
        _STAGES,
        others[np.lexsort((others[:, 2], others[:, 1]))].astype(np.int64),
    )
    rows[:, 1] = order[rows[:, 1]]
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


def _steps(effort: float, cp: int) -> int:
    """Return the budget; with many ranks a step takes longer, and there are fewer a rank."""
    return int(effort * STEPS_A_RANK * cp / np.sqrt(max(cp / 8, 1.0)))


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
    lengths: Ints, cp: int, weights: Floats, draws: Ints, grid: int, steps: int, stages: Floats,
    others: Ints,
) -> "Rows":  # fmt: skip
    """Search for one pack whose documents are sorted by falling length; see `find_placement`.

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
            trial = adopt(others, lengths.size, cp, pieces, weights)
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
    repair(pool, first, counters, lists, ranks, loads, weights, grid)
    even_out(pool, first, loads[:, PAIRS].copy(), grid, draws)
    rows = np.empty((pieces, 4), dtype=np.int32)
    count = copy_rows(pool, first, rows)
    return rows[:count].copy()
