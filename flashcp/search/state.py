"""A placement that can change: pieces of documents, linked in order and listed by rank.

A piece is a shard in the making. Pieces live in a pool, each linked to its neighbours within its
document and entered in its rank's list, so that a search can draw one of a rank's pieces, move it
or one end of it to another rank and take the move back, each in constant time. Between moves
neighbouring pieces of a document are on different ranks.

The arrays, for D documents, N ranks and a pool of P pieces; functions take those that they need:

    pool      [P, COLUMNS]  the pieces, the stack of free ones, and a scratch list
    first     [D]           each document's first piece
    counters  [COUNTERS]    free pieces, cuts, the last visit's mark, and ranks per node
    lists     [N, most]     each rank's pieces
    ranks     [N, 3]        how many those are, and when each rank and node was last visited
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit, jit_as, jit_lean

# Columns of the pool. The last two are stacks of their own beside the pieces.
DOCUMENT, RANK, START, STOP, NEXT, PREVIOUS, SLOT, UNUSED, ORDER = range(9)
COLUMNS = 9

# Positions in the counters: pieces left, pieces beyond one a document, mark of the last visit, and
# ranks that share a node; 0 where all of them do.
FREE, CUTS, STAMP, PER_NODE = range(4)
COUNTERS = 4

# Columns of the ranks, the third their node; of nodes the first rows of the last.
SIZE, SEEN, NODE, NODE_SEEN = range(4)

_SPARE = 64  # pieces for which a rank's list has room besides twice the longest at first

Ints = NDArray[np.int64]


@jit
def new_pool(documents: int, pieces: int) -> tuple[Ints, Ints, Ints]:
    """Return an empty pool: pool, first and counters."""
    pool = np.full((pieces, COLUMNS), -1, dtype=np.int64)
    for piece in range(pieces):
        pool[piece, UNUSED] = pieces - 1 - piece
    first = np.full(documents, -1, dtype=np.int64)
    counters = np.zeros(COUNTERS, dtype=np.int64)
    counters[FREE] = pieces
    return pool, first, counters


@jit_lean
def append_piece(
    pool: Ints, first: Ints, counters: Ints, document: int, rank: int, start: int, stop: int
) -> None:
    """Add a piece after the document's last one, without listing it."""
    counters[FREE] -= 1
    piece = pool[counters[FREE], UNUSED]
    before = first[document]
    if before < 0:
        first[document] = piece
    else:
        while pool[before, NEXT] >= 0:
            before = pool[before, NEXT]
        pool[before, NEXT] = piece
        counters[CUTS] += 1
    pool[piece, DOCUMENT] = document
    pool[piece, RANK] = rank
    pool[piece, START] = start
    pool[piece, STOP] = stop
    pool[piece, NEXT] = -1
    pool[piece, PREVIOUS] = before


@jit_lean
def enlist(pool: Ints, lists: Ints, ranks: Ints, piece: int) -> None:
    """Enter a piece in its rank's list."""
    rank = pool[piece, RANK]
    pool[piece, SLOT] = ranks[rank, SIZE]
    lists[rank, ranks[rank, SIZE]] = piece
    ranks[rank, SIZE] += 1


@jit_as("void(i8[:, ::1], i8[:, ::1], i8[:, ::1], i8, i8)", lean=True)
def delist(pool: Ints, lists: Ints, ranks: Ints, piece: int, rank: int) -> None:
    """Take a piece out of `rank`'s list; the list's last takes its slot."""
    ranks[rank, SIZE] -= 1
    moved = lists[rank, ranks[rank, SIZE]]
    slot = pool[piece, SLOT]
    lists[rank, slot] = moved
    pool[moved, SLOT] = slot


@jit
def list_pieces(pool: Ints, first: Ints, counters: Ints, cp: int) -> tuple[Ints, Ints]:
    """Return the lists and ranks of a placement."""
    ranks = np.zeros((cp, 4), dtype=np.int64)
    if counters[PER_NODE] > 0:
        ranks[:, NODE] = np.arange(cp) // counters[PER_NODE]
    for document in range(first.size):
        piece = first[document]
        while piece >= 0:
            ranks[pool[piece, RANK], SIZE] += 1
            piece = pool[piece, NEXT]
    lists = np.full((cp, 2 * ranks[:, SIZE].max() + _SPARE), -1, dtype=np.int64)
    ranks[:, SIZE] = 0
    for document in range(first.size):
        piece = first[document]
        while piece >= 0:
            enlist(pool, lists, ranks, piece)
            piece = pool[piece, NEXT]
    return lists, ranks


@jit_as("i8(i8[:, ::1], i8[::1], i8[::1], i8, i8, b1, i8)", lean=True)
def move_part(
    pool: Ints, first: Ints, counters: Ints, piece: int, cut: int, head: bool, rank: int
) -> int:
    """Give a piece, or the part of it before or after a cut, to `rank`; lists stay as they are.

    Args:
        pool: the placement's, changed.
        first: the placement's, changed.
        counters: the placement's, changed.
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
    part = pool[counters[FREE], UNUSED]
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


@jit_as("void(i8[:, ::1], i8[::1], i8[::1], i8, i8, b1, i8)", lean=True)
def move_back(
    pool: Ints, first: Ints, counters: Ints, piece: int, part: int, head: bool, rank: int
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
    pool[counters[FREE], UNUSED] = part
    counters[FREE] += 1
    counters[CUTS] -= 1


@jit_as("void(i8[:, ::1], i8[:, ::1], i8[:, ::1], i8, i8, i8)", lean=True)
def relist(pool: Ints, lists: Ints, ranks: Ints, piece: int, part: int, rank: int) -> None:
    """Bring the lists in step with a `move_part` that took from `rank` and returned `part`."""
    if part < 0:
        delist(pool, lists, ranks, piece, rank)
        enlist(pool, lists, ranks, piece)
    else:
        enlist(pool, lists, ranks, part)


@jit_lean
def join_neighbours(
    pool: Ints, first: Ints, counters: Ints, lists: Ints, ranks: Ints, document: int
) -> None:
    """Join a document's neighbouring pieces that are on one rank; cuts were counted before.

    See `flashcp.search.loads.account_joins`. All its pieces must be listed.
    """
    piece = first[document]
    while pool[piece, NEXT] >= 0:
        after = pool[piece, NEXT]
        if pool[piece, RANK] != pool[after, RANK]:
            piece = after
            continue
        delist(pool, lists, ranks, after, pool[after, RANK])
        pool[piece, STOP] = pool[after, STOP]
        beyond = pool[after, NEXT]
        pool[piece, NEXT] = beyond
        if beyond >= 0:
            pool[beyond, PREVIOUS] = piece
        pool[counters[FREE], UNUSED] = after
        counters[FREE] += 1


@jit_lean
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
