"""A placement that can change: pieces of documents, linked in order and listed by rank.

A piece is a shard in the making. Pieces live in a pool, each linked to its neighbours within its
document and entered in its rank's list, so that a search can draw one of a rank's pieces, move it
or one end of it to another rank and take the move back, each in constant time. Between moves
neighbouring pieces of a document are on different ranks.

Sizes: D documents, N ranks, P pieces in the pool.
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit

# Columns of the pool, int64 [P, COLUMNS].
DOCUMENT, RANK, START, STOP, NEXT, PREVIOUS, SLOT = range(7)
COLUMNS = 7

# Positions in the counters, int64 [COUNTERS].
FREE, STAMP, CUTS = range(3)  # pieces left in the pool; marks visits; pieces beyond one a document
COUNTERS = 3

Ints = NDArray[np.int64]


@jit
def new_pool(documents: int, pieces: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return an empty pool.

    Returns:
        Pool [P, COLUMNS]; each document's first piece [D], -1 so far; the stack of free pieces [P];
        counters.
    """
    pool = np.full((pieces, COLUMNS), -1, dtype=np.int64)
    first = np.full(documents, -1, dtype=np.int64)
    free = np.arange(pieces - 1, -1, -1)
    counters = np.zeros(COUNTERS, dtype=np.int64)
    counters[FREE] = pieces
    return pool, first, free, counters


@jit
def append_piece(
    pool: Ints, first: Ints, free: Ints, counters: Ints, last: Ints,
    document: int, rank: int, start: int, stop: int,
) -> int:  # fmt: skip
    """Add a piece after the document's last one, without listing it; `last` is [D]."""
    counters[FREE] -= 1
    piece = free[counters[FREE]]
    pool[piece, DOCUMENT] = document
    pool[piece, RANK] = rank
    pool[piece, START] = start
    pool[piece, STOP] = stop
    pool[piece, NEXT] = -1
    pool[piece, PREVIOUS] = last[document]
    if last[document] >= 0:
        pool[last[document], NEXT] = piece
        counters[CUTS] += 1
    else:
        first[document] = piece
    last[document] = piece
    return int(piece)


@jit
def enlist(pool: Ints, lists: Ints, sizes: Ints, piece: int) -> None:
    """Enter a piece in its rank's list; `lists` is [N, most], `sizes` [N]."""
    rank = pool[piece, RANK]
    pool[piece, SLOT] = sizes[rank]
    lists[rank, sizes[rank]] = piece
    sizes[rank] += 1


@jit
def delist(pool: Ints, lists: Ints, sizes: Ints, piece: int, rank: int) -> None:
    """Take a piece out of `rank`'s list; the list's last takes its slot."""
    sizes[rank] -= 1
    moved = lists[rank, sizes[rank]]
    slot = pool[piece, SLOT]
    lists[rank, slot] = moved
    pool[moved, SLOT] = slot


@jit
def move_part(
    pool: Ints, first: Ints, free: Ints, counters: Ints, piece: int, cut: int, head: bool, rank: int
) -> int:
    """Give a piece, or the part of it before or after `cut`, to `rank`; lists stay as they are.

    Args:
        pool, first, free, counters: the placement.
        piece: whose.
        cut: a token within the piece; -1 moves all of it.
        head: whether the part before the cut moves.
        rank: who gets it.

    Returns:
        The new piece that moved, or -1 where the piece itself did.
    """
    if cut < 0:
        pool[piece, RANK] = rank
        return -1
    counters[FREE] -= 1
    counters[CUTS] += 1
    part = free[counters[FREE]]
    pool[part, DOCUMENT] = pool[piece, DOCUMENT]
    pool[part, RANK] = rank
    if head:
        pool[part, START] = pool[piece, START]
        pool[part, STOP] = cut
        pool[piece, START] = cut
        before, after = pool[piece, PREVIOUS], piece
    else:
        pool[part, START] = cut
        pool[part, STOP] = pool[piece, STOP]
        pool[piece, STOP] = cut
        before, after = piece, pool[piece, NEXT]
    pool[part, PREVIOUS] = before
    pool[part, NEXT] = after
    if after >= 0:
        pool[after, PREVIOUS] = part
    if before >= 0:
        pool[before, NEXT] = part
    else:
        first[pool[part, DOCUMENT]] = part
    return int(part)


@jit
def move_back(
    pool: Ints,
    first: Ints,
    free: Ints,
    counters: Ints,
    piece: int,
    part: int,
    head: bool,
    rank: int,
) -> None:
    """Undo `move_part`: `part` is what it returned, `rank` where the piece was."""
    if part < 0:
        pool[piece, RANK] = rank
        return
    before, after = pool[part, PREVIOUS], pool[part, NEXT]
    if head:
        pool[piece, START] = pool[part, START]
    else:
        pool[piece, STOP] = pool[part, STOP]
    if after >= 0:
        pool[after, PREVIOUS] = before
    if before >= 0:
        pool[before, NEXT] = after
    else:
        first[pool[part, DOCUMENT]] = after
    free[counters[FREE]] = part
    counters[FREE] += 1
    counters[CUTS] -= 1


@jit
def join_neighbours(
    pool: Ints, first: Ints, free: Ints, counters: Ints, lists: Ints, sizes: Ints, document: int
) -> None:
    """Join a document's neighbouring pieces that are on one rank; all of them must be listed."""
    piece = first[document]
    while pool[piece, NEXT] >= 0:
        after = pool[piece, NEXT]
        if pool[piece, RANK] != pool[after, RANK]:
            piece = after
            continue
        delist(pool, lists, sizes, after, pool[after, RANK])
        pool[piece, STOP] = pool[after, STOP]
        beyond = pool[after, NEXT]
        pool[piece, NEXT] = beyond
        if beyond >= 0:
            pool[beyond, PREVIOUS] = piece
        free[counters[FREE]] = after
        counters[FREE] += 1
        counters[CUTS] -= 1


@jit
def copy_rows(pool: Ints, first: Ints, rows: NDArray[np.int32]) -> int:
    """Write every piece as (rank, document, start, stop), in document order; returns how many."""
    count = 0
    for document in range(first.size):
        piece = first[document]
        while piece >= 0:
            rows[count, 0] = pool[piece, RANK]
            rows[count, 1] = document
            rows[count, 2] = pool[piece, START]
            rows[count, 3] = pool[piece, STOP]
            count += 1
            piece = pool[piece, NEXT]
    return count
