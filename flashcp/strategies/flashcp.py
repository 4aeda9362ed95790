"""FlashCP: the paper's Algorithm 1, Whole-Doc for most documents and Per-Doc for giants.

Documents go whole, longest first, to the rank with the least work. Ranks with too many tokens then
hand documents, whole where one fits and otherwise one end of one, to ranks with too few. While the
imbalance is above R the longest document left joins those cut Per-Doc and all is placed anew.

The paper leaves open, and this module decides:

- R is 1.04, the imbalance that its Table 2 reports for the heuristic.
- One document at a time joins Per-Doc, its leftover tokens spread with the same carried counter as
  in `per-doc`. A document of fewer than 2N tokens is no giant and never joins. Should no split
  reach R, the one with the least imbalance is taken.
- Of the C mod N ranks that hold one token more, ranks that Per-Doc already filled come first, then
  those with the most tokens, so that as little as possible moves.
- The rank with the largest surplus gives to the rank with the least work among those that lack
  tokens. It gives the longest whole document that fits in both amounts; if none fits, it cuts.
- A cut moves the head or the tail of one document, of exactly the smaller of surplus and lack. The
  one chosen has the smallest sum of (larger work of the two ranks after it / mean work) and
  (tokens that it makes travel / tokens a rank): heads travel, tails never do.
- Ties go to fewer tokens, then to the lower rank; among documents to the earlier one.
"""

import numpy as np
from numpy.typing import NDArray

from flashcp.strategies._chunks import chunk_start
from flashcp.strategies._shards import Rows, append, canonical
from groundwork.jit import jit, jit_as

TARGET_IMBALANCE = 1.04


@jit_as("i8(i8, i8)", lean=True)
def work_of(start: int, stop: int) -> int:
    """Return the query-key pairs of the shard [start, stop) of a document."""
    return (stop - start) * (start + stop + 1) // 2


@jit_as("Tuple((i8, b1))(i4[:,::1], i8[::1], i8, i8, i8, i8, f8, i8)", lean=True)
def _cheapest_cut(
    rows: Rows,
    following: NDArray[np.int64],
    first: int,
    amount: int,
    giver_work: int,
    taker_work: int,
    mean_work: float,
    share: int,
) -> tuple[int, bool]:
    """Choose the shard to cut, of those from `first` on, and whether its head (or tail) moves."""
    best = -1
    best_head = False
    best_cost = np.inf
    i = first
    while i >= 0:
        start, stop = rows[i, 2], rows[i, 3]
        for head in (True, False):
            cut = start + amount if head else stop - amount
            moved = work_of(start, cut) if head else work_of(cut, stop)
            larger = max(giver_work - moved, taker_work + moved)
            cost = larger / mean_work + (cut - start) / share
            if cost < best_cost or (cost == best_cost and i < best):
                best, best_head, best_cost = i, head, cost
        i = following[i]
    return best, best_head


@jit_as("i8(i4[:,::1], i8[::1], i8, i8)", lean=True)
def _longest_that_fits(rows: Rows, following: NDArray[np.int64], first: int, amount: int) -> int:
    """Return the longest shard of at most `amount` tokens from `first` on; -1 if none is."""
    best = -1
    longest = 0
    i = first
    while i >= 0:
        size = rows[i, 3] - rows[i, 2]
        if size <= amount and (size > longest or (size == longest and i < best)):
            best, longest = i, size
        i = following[i]
    return best


@jit_as("void(i8[::1], i8[::1], i8, i8, i8)", lean=True)
def _hand_over(
    first: NDArray[np.int64], following: NDArray[np.int64], shard: int, giver: int, taker: int
) -> None:
    """Move a shard from the giver's list to the taker's."""
    if first[giver] == shard:
        first[giver] = following[shard]
    else:
        before = first[giver]
        while following[before] != shard:
            before = following[before]
        following[before] = following[shard]
    following[shard] = first[taker]
    first[taker] = shard


@jit_as("i8(i4[:,::1], i8, i8, i8[::1], i8[::1], i8[::1])")
def _equalise(
    rows: Rows,
    fixed: int,
    count: int,
    tokens: NDArray[np.int64],
    work: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> int:
    """Move documents and cuts from ranks with a surplus to ranks with a lack until none is left.

    Each step empties a surplus, fills a lack or moves a whole document into a lack, which is never
    overfilled: so this ends after at most 2N cuts. Shards are listed by rank, so that a step looks
    at the giver's alone.
    """
    mean_work = work.sum() / work.size
    share = max(targets.max(), 1)
    first = np.full(work.size, -1, dtype=np.int64)
    following = np.full(rows.shape[0], -1, dtype=np.int64)
    for i in range(fixed, count):
        following[i] = first[rows[i, 0]]
        first[rows[i, 0]] = i
    while True:
        giver = int(np.argmax(tokens - targets))
        surplus = tokens[giver] - targets[giver]
        if surplus <= 0:
            return count
        taker = -1
        for r in range(work.size):
            if tokens[r] < targets[r] and (taker < 0 or work[r] < work[taker]):
                taker = r
        amount = min(surplus, targets[taker] - tokens[taker])
        whole = _longest_that_fits(rows, following, first[giver], amount)
        if whole >= 0:
            moved = work_of(rows[whole, 2], rows[whole, 3])
            amount = rows[whole, 3] - rows[whole, 2]
            rows[whole, 0] = taker
            _hand_over(first, following, whole, giver, taker)
        else:
            i, head = _cheapest_cut(
                rows, following, first[giver], amount, work[giver], work[taker], mean_work, share
            )
            start, stop = rows[i, 2], rows[i, 3]
            cut = start + amount if head else stop - amount
            moved = work_of(start, cut) if head else work_of(cut, stop)
            rows[count, 0] = taker
            rows[count, 1] = rows[i, 1]
            rows[count, 2] = start if head else cut
            rows[count, 3] = cut if head else stop
            rows[i, 2] = cut if head else start
            rows[i, 3] = stop if head else cut
            following[count] = first[taker]
            first[taker] = count
            count += 1
        tokens[giver] -= amount
        tokens[taker] += amount
        work[giver] -= moved
        work[taker] += moved


@jit
def _targets(tokens: NDArray[np.int64], filled: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose how many tokens each rank shall hold: equal, give or take one."""
    cp = tokens.size
    share = tokens.sum() // cp
    targets = np.full(cp, share, dtype=np.int64)
    for _ in range(tokens.sum() - share * cp):
        best = -1
        for r in range(cp):
            if targets[r] > share:
                continue
            # Per-Doc may have given a rank the odd token already, which it cannot give away.
            must = filled[r] > share
            if best < 0 or (must, tokens[r]) > (filled[best] > share, tokens[best]):
                best = r
        targets[best] += 1
    return targets


@jit
def _place(
    lengths: NDArray[np.int32], longest_first: NDArray[np.int64], giants: int, cp: int
) -> tuple[Rows, int]:
    """Cut the `giants` longest documents Per-Doc, place the rest Whole-Doc.

    Returns:
        The shards, in no order, and the largest rank's work.
    """
    chunks = 2 * cp
    rows = np.empty((giants * chunks + lengths.size + 4 * cp, 4), dtype=np.int32)
    tokens = np.zeros(cp, dtype=np.int64)
    work = np.zeros(cp, dtype=np.int64)
    count = 0
    carry = 0
    for i in range(giants):
        document = longest_first[i]
        length = lengths[document]
        for chunk in range(chunks):
            rank = min(chunk, chunks - 1 - chunk)
            start = chunk_start(length, chunks, carry, chunk)
            stop = chunk_start(length, chunks, carry, chunk + 1)
            tokens[rank] += stop - start
            work[rank] += work_of(start, stop)
            count = append(rows, count, rank, document, start, stop)
        carry = (carry + length) % chunks
    fixed = count  # shards before this one stay where they are
    filled = tokens.copy()
    for i in range(giants, lengths.size):
        document = longest_first[i]
        rank = 0
        for r in range(1, cp):
            if work[r] < work[rank] or (work[r] == work[rank] and tokens[r] < tokens[rank]):
                rank = r
        tokens[rank] += lengths[document]
        work[rank] += work_of(0, lengths[document])
        rows[count, 0] = rank
        rows[count, 1] = document
        rows[count, 2] = 0
        rows[count, 3] = lengths[document]
        count += 1
    count = _equalise(rows, fixed, count, tokens, work, _targets(tokens, filled))
    return rows[:count], int(work.max())


@jit
def _search(lengths: NDArray[np.int32], longest_first: NDArray[np.int64], cp: int) -> Rows:
    """Let documents join Per-Doc, the longest first, until the imbalance is at most R."""
    best = np.empty((0, 4), dtype=np.int32)
    best_work = -1
    total_work = 0
    for length in lengths:
        total_work += work_of(0, length)
    for giants in range(lengths.size + 1):
        if giants > 0 and lengths[longest_first[giants - 1]] < 2 * cp:
            break
        rows, largest_work = _place(lengths, longest_first, giants, cp)
        if best_work < 0 or largest_work < best_work:
            best, best_work = rows, largest_work
        if largest_work * cp <= TARGET_IMBALANCE * total_work:
            break
    return best


def flashcp_shards(lengths: NDArray[np.int32], cp: int) -> Rows:
    """Place a pack by Algorithm 1.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: N, the ranks.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop.
    """
    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    return canonical(_search(lengths, longest_first, cp))
