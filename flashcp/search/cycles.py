"""Evens out work without touching tokens: shifts cuts around cycles of ranks.

Where a cut between ranks a and b moves by some tokens, a gains what b loses. Along a cycle of cuts
a-b, b-c, c-a that move alike every rank keeps its tokens, and each one's work changes by the
distance in depth of its two cuts. Each step turns the cycle of two or three cuts that lowers the
sum of squared surpluses most, by the best whole number of tiles; where none does, two random turns
shake the placement and what does not end lower is taken back, until that has failed often in a row.
On packs of few long documents, where a single tile at the end of one is 1.6% of a rank's work, this
takes the largest rank's surplus from 1.8% to 0.5% (papers, CP 8), which no move between two ranks
had found.
"""

import numpy as np

from flashcp.search.loads import Floats, pairs_of
from flashcp.search.state import NEXT, RANK, START, STOP, Ints
from groundwork.jit import jit, jit_lean

_MOST_CYCLES = 2048
_MOST_STEPS = 24  # before a shake, and after each
_SHAKES = 64
_PATIENCE = 20  # shakes in a row that fail before no more are tried
_ROUNDING = 1.0 + 1e-9  # more than rounding adds to a parabola's summit
# Columns of what is known of a cycle: its parabola, how high that is at most, and, once asked for
# (-1 before), what its best turn gains and how far that is.
_SLOPE, _SQUARES, _MOST, _GAIN, _TURNS = range(5)
_WEIGHED = 5
_EVEN = 1.004  # work of the largest rank over the mean that is good enough


@jit
def _list_cuts(pool: Ints, first: Ints) -> Ints:
    """Return the piece on the left of every cut, [cuts]."""
    cuts = np.empty(pool.shape[0], dtype=np.int64)
    count = 0
    for document in range(first.size):
        piece = first[document]
        while pool[piece, NEXT] >= 0:
            cuts[count] = piece
            count += 1
            piece = pool[piece, NEXT]
    return cuts[:count].copy()


@jit
def _find_cycles(pool: Ints, cuts: Ints, cp: int) -> Ints:
    """Return the cycles of two and of three cuts, [cycles, 3]; 0 fills up.

    Entry i + 1 is cut i moving up, which its left piece's rank gains from; -(i + 1) the opposite.
    What one entry's rank loses the next one's gains.
    """
    left = np.empty(cuts.size, dtype=np.int64)
    right = np.empty(cuts.size, dtype=np.int64)
    splits = np.zeros(cp + 1, dtype=np.int64)
    for i in range(cuts.size):
        left[i] = pool[cuts[i], RANK]
        right[i] = pool[pool[cuts[i], NEXT], RANK]
        splits[left[i] + 1] += 1
        splits[right[i] + 1] += 1
    for rank in range(cp):
        splits[rank + 1] += splits[rank]
    filled = splits.copy()
    beside = np.empty(2 * cuts.size, dtype=np.int64)  # cuts of each rank
    for i in range(cuts.size):
        for rank in (left[i], right[i]):
            beside[filled[rank]] = i
            filled[rank] += 1
    cycles = np.zeros((_MOST_CYCLES, 3), dtype=np.int64)
    count = 0
    for i in range(cuts.size):
        for at in range(splits[right[i]], splits[right[i] + 1]):
            j = beside[at]
            if j <= i or count == _MOST_CYCLES:
                continue
            up = left[j] == right[i]
            loses = right[j] if up else left[j]
            second = j + 1 if up else -(j + 1)
            if loses == left[i]:
                cycles[count, 0] = i + 1
                cycles[count, 1] = second
                count += 1
                continue
            for beyond in range(splits[loses], splits[loses + 1]):
                k = beside[beyond]
                if k <= i or k == j or count == _MOST_CYCLES:
                    continue
                if (right[k] if left[k] == loses else left[k]) == left[i]:
                    cycles[count, 0] = i + 1
                    cycles[count, 1] = second
                    cycles[count, 2] = k + 1 if left[k] == loses else -(k + 1)
                    count += 1
    return cycles[:count].copy()


@jit_lean
def _room(pool: Ints, cut: int, entry: int) -> int:
    """Return how many tokens a cut may move so that the piece that shrinks keeps half of its own.

    Half, because both cuts of a piece may be of one cycle.
    """
    piece = pool[cut, NEXT] if entry > 0 else cut
    return int((pool[piece, STOP] - pool[piece, START] - 1) >> 1)


@jit_lean
def _parabola(
    pool: Ints, cuts: Ints, cycle: Ints, holders: Ints, work: Floats, mean: float
) -> tuple[float, float]:
    """Return slope and curvature, over the tokens turned, of half of the sum of squares."""
    length = 2 if cycle[2] == 0 else 3
    slope = squares = 0.0
    depth = pool[cuts[abs(cycle[length - 1]) - 1], STOP] + 0.5
    for i in range(length):
        deeper = pool[cuts[abs(cycle[i]) - 1], STOP] + 0.5
        change = deeper - depth
        depth = deeper
        slope += change * (work[holders[i]] - mean)
        squares += change * change
    return slope, squares


@jit_lean
def _best_turn(
    pool: Ints, cuts: Ints, cycle: Ints, grid: int, slope: float, squares: float, wanted: int
) -> tuple[float, int]:
    """Return how far to turn a cycle, in grids, and by how much that lowers the sum of squares.

    `wanted` is how far, as far as there is room; 0 wants the best.
    """
    most = least = 1 << 40
    for i in range(2 if cycle[2] == 0 else 3):
        cut = cuts[abs(cycle[i]) - 1]
        most = min(most, _room(pool, cut, cycle[i]))
        least = min(least, _room(pool, cut, -cycle[i]))
    if wanted == 0 and squares > 0.0:
        wanted = int(np.rint(-slope / squares / grid))
    turns = min(max(wanted, -(least // grid)), most // grid)
    tokens = float(turns * grid)
    return -(2.0 * tokens * slope + tokens * tokens * squares), turns


@jit_lean
def _turn(
    pool: Ints, cuts: Ints, cycle: Ints, tokens: int, work: Floats, stale: Ints, shaken: Ints
) -> None:
    """Turn a cycle by so many tokens; marks its ranks."""
    for entry in cycle:
        if entry == 0:
            return
        cut = cuts[abs(entry) - 1]
        after = pool[cut, NEXT]
        to = pool[cut, STOP] + (tokens if entry > 0 else -tokens)
        gained = pairs_of(pool[cut, STOP], to)
        work[pool[cut, RANK]] += gained
        work[pool[after, RANK]] -= gained
        for rank in (pool[cut, RANK], pool[after, RANK]):
            stale[rank] = shaken[rank] = 1
        pool[cut, STOP] = to
        pool[after, START] = to


@jit_lean
def _surplus(work: Floats, mean: float) -> float:
    """Return the sum of squared surpluses."""
    total = 0.0
    for rank in range(work.size):
        total += (work[rank] - mean) * (work[rank] - mean)
    return float(total)


@jit_lean
def _weigh(
    pool: Ints, cuts: Ints, cycles: Ints, holders: Ints, work: Floats, mean: float, stale: Ints,
    weighed: Floats,
) -> None:  # fmt: skip
    """Bring up to date what is known of the cycles of ranks that are stale; then none is.

    A turn changes cuts and work of two or three ranks, and nothing that other ranks' cycles depend
    on: of 64 ranks, nine in ten cycles are as they were.
    """
    for i in range(cycles.shape[0]):
        if stale[holders[i, 0]] + stale[holders[i, 1]] + stale[holders[i, 2]] == 0:
            continue
        slope, squares = _parabola(pool, cuts, cycles[i], holders[i], work, mean)
        weighed[i, _SLOPE], weighed[i, _SQUARES] = slope, squares
        weighed[i, _MOST] = 0.0
        if squares > 0.0:
            weighed[i, _MOST] = slope * slope / squares * _ROUNDING
        weighed[i, _GAIN] = -1.0
    for rank in range(stale.size):
        stale[rank] = 0


@jit_lean
def _descend(
    pool: Ints, cuts: Ints, cycles: Ints, holders: Ints, grid: int, work: Floats, mean: float,
    stale: Ints, shaken: Ints, weighed: Floats,
) -> float:  # fmt: skip
    """Turn the best cycle until none helps; returns the sum of squared surpluses."""
    total = _surplus(work, mean)
    for _ in range(_MOST_STEPS):
        _weigh(pool, cuts, cycles, holders, work, mean, stale, weighed)
        best = -1
        most = 0.0
        for i in range(cycles.shape[0]):
            if weighed[i, _MOST] <= most:  # the parabola's summit
                continue
            if weighed[i, _GAIN] < 0.0:
                gain, turns = _best_turn(
                    pool, cuts, cycles[i], grid, weighed[i, _SLOPE], weighed[i, _SQUARES], 0
                )
                weighed[i, _GAIN], weighed[i, _TURNS] = max(gain, 0.0), turns
            if weighed[i, _GAIN] > most:
                most, best = weighed[i, _GAIN], i
        if best < 0:
            break
        tokens = int(weighed[best, _TURNS]) * grid
        _turn(pool, cuts, cycles[best], tokens, work, stale, shaken)
        then = _surplus(work, mean)
        if then >= total:  # the parabola takes depths as they were before the turn
            _turn(pool, cuts, cycles[best], -tokens, work, stale, shaken)
            break
        total = then
    return total


@jit_lean
def _find_holders(pool: Ints, cuts: Ints, cycles: Ints, holders: Ints) -> None:
    """Write which rank gains by each entry of a cycle, [cycles, 3]; the first one's fills up."""
    for i in range(cycles.shape[0]):
        for j in range(3):
            entry = cycles[i, j] if cycles[i, j] != 0 else cycles[i, 0]
            cut = cuts[abs(entry) - 1]
            holders[i, j] = pool[cut if entry > 0 else pool[cut, NEXT], RANK]


@jit
def even_out(pool: Ints, first: Ints, work: Floats, grid: int, draws: Ints) -> None:
    """Even out the ranks' work, or what else grows by a pair's worth with a pair.

    Args:
        pool: the placement's, changed; lists and loads are out of step afterwards.
        first: the placement's.
        work: query-key pairs of each rank, or time in pairs' worth, [N], changed alike.
        grid: cuts move by multiples of so many tokens.
        draws: hashes, int64 [draws].
    """
    cuts = _list_cuts(pool, first)
    cycles = _find_cycles(pool, cuts, work.size)
    if cycles.shape[0] == 0:
        return
    mean = work.sum() / work.size
    holders = np.empty_like(cycles)
    _find_holders(pool, cuts, cycles, holders)
    stale = np.ones(work.size, dtype=np.int64)  # ranks whose cycles are to be weighed anew
    shaken = np.zeros(work.size, dtype=np.int64)  # ranks that differ from what is kept
    weighed = np.empty((cycles.shape[0], _WEIGHED))
    least = _descend(pool, cuts, cycles, holders, grid, work, mean, stale, shaken, weighed)
    kept = work.copy()
    stops = np.empty(cuts.size, dtype=np.int64)
    failed = 0  # shakes in a row
    for shake in range(_SHAKES):
        if work.max() <= _EVEN * mean or failed == _PATIENCE:
            return
        for i in range(cuts.size):
            stops[i] = pool[cuts[i], STOP]
        for turn in range(2):
            bits = draws[2 * shake + turn] & 0x7FFFFFFF
            cycle = cycles[(bits >> 3) % cycles.shape[0]]
            far = 1 + (bits & 1)
            _, turns = _best_turn(pool, cuts, cycle, grid, 0.0, 0.0, far if bits & 2 else -far)
            _turn(pool, cuts, cycle, turns * grid, work, stale, shaken)
        total = _descend(pool, cuts, cycles, holders, grid, work, mean, stale, shaken, weighed)
        if total < least:
            least = total
            kept[:] = work
            shaken[:] = 0
            failed = 0
            continue
        failed += 1
        work[:] = kept
        for rank in range(work.size):
            stale[rank] |= shaken[rank]
        shaken[:] = 0
        for i in range(cuts.size):
            pool[cuts[i], STOP] = stops[i]
            pool[pool[cuts[i], NEXT], START] = stops[i]
