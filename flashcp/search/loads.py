"""What a piece, and the exchange of a document's pieces, add to the loads of their ranks.

Loads are sums of whole numbers (times fixed weights for times), so taking a piece away leaves what
was there before it came. Where pieces begin on multiples of 128 tokens the tiles telescope: however
a document is cut there, its parts walk as many tiles as the whole.
"""

import numpy as np
from numpy.typing import NDArray

from flashcp.search.state import (
    CUTS,
    NEXT,
    NODE,
    NODE_SEEN,
    ORDER,
    PER_NODE,
    RANK,
    SEEN,
    STAMP,
    START,
    STOP,
    Ints,
)
from flashcp.search.weights import (
    ACROSS,
    COPY_US,
    KEY_TILE_US,
    LOCAL,
    LOCAL_ROW_US,
    LOCAL_TILE_US,
    MERGE_US,
    PAIRS,
    RECEIVED,
    ROW_US,
    SENT,
    TILE,
    TILE_US,
    TILES,
    TIME,
    TOKENS,
)
from groundwork.jit import jit_as, jit_lean

Floats = NDArray[np.float64]

_TILE_BITS = TILE.bit_length() - 1


@jit_as("f8(i8, i8)", lean=True)
def pairs_of(start: int, stop: int) -> float:
    """Return the query-key pairs of [start, stop) of a document."""
    return (stop - start) * (start + stop + 1) * 0.5


@jit_lean
def tiles_of(start: int, stop: int) -> tuple[float, float]:
    """Return the 128x128 tiles that [start, stop) walks, and its rows of tiles."""
    size = stop - start
    whole = size >> _TILE_BITS  # by shifts: a division that rounds down has signs to look at
    before = (start + TILE - 1) >> _TILE_BITS
    walked = whole * before + (whole * (whole + 1) >> 1)
    if whole * TILE < size:
        return float(walked + ((stop + TILE - 1) >> _TILE_BITS)), float(whole + 1)
    return float(walked), float(whole)


@jit_lean
def piece_costs(start: int, stop: int, weights: Floats) -> tuple[float, float, float]:
    """Return the tiles, the time and the time of own keys alone that one piece costs by itself.

    Its own keys are attended to in one call, what precedes it in another whose output is merged and
    whose keys are copied, less those received (`add_exchange`), which land in their place.
    """
    tiles, rows = tiles_of(start, stop)
    own, _ = tiles_of(0, stop - start)
    before = (start + TILE - 1) >> _TILE_BITS
    waits = 1.0 if start > 0 else 0.0
    us = (
        weights[TILE_US] * (own + rows * before)
        + weights[ROW_US] * rows * (1.0 + waits)
        + weights[KEY_TILE_US] * (rows + before)
        + weights[COPY_US] * start
        + weights[MERGE_US] * waits * (stop - start)
    )
    return tiles, us, weights[LOCAL_TILE_US] * own + weights[LOCAL_ROW_US] * rows


@jit_as("void(f8[:, ::1], i8, i8, i8, f8, f8[::1])", lean=True)
def add_costs(
    loads: Floats, rank: int, start: int, stop: int, sign: float, weights: Floats
) -> None:
    """Add (or with sign -1 take away) what one piece costs, but for its pairs and tokens."""
    tiles, us, local = piece_costs(start, stop, weights)
    loads[rank, TILES] += sign * tiles
    loads[rank, TIME] += sign * us
    loads[rank, LOCAL] += sign * local


@jit_as("void(f8[:, ::1], i8, i8, i8, f8, f8[::1])", lean=True)
def add_piece(
    loads: Floats, rank: int, start: int, stop: int, sign: float, weights: Floats
) -> None:
    """Add (or with sign -1 take away) what one piece costs by itself."""
    loads[rank, TOKENS] += sign * (stop - start)
    loads[rank, PAIRS] += sign * pairs_of(start, stop)
    add_costs(loads, rank, start, stop, sign, weights)


@jit_lean
def shift_part(
    pool: Ints, loads: Floats, weights: Floats, piece: int, cut: int, head: bool, rank: int
) -> None:
    """Account for what `move_part` will do, before it does and without the exchange."""
    start = pool[piece, START]
    stop = pool[piece, STOP]
    here = pool[piece, RANK]
    add_piece(loads, here, start, stop, -1.0, weights)
    if cut < 0:
        add_piece(loads, rank, start, stop, 1.0, weights)
    elif head:
        add_piece(loads, rank, start, cut, 1.0, weights)
        add_piece(loads, here, cut, stop, 1.0, weights)
    else:
        add_piece(loads, here, start, cut, 1.0, weights)
        add_piece(loads, rank, cut, stop, 1.0, weights)


@jit_lean
def add_across(
    counters: Ints, ranks: Ints, rank: int, tokens: float, nodes: int, loads: Floats
) -> int:
    """Add what a piece sends to the nodes with later pieces of its document, but for its own.

    Args:
        counters: whose mark tells the nodes seen in this visit.
        ranks: each one's node; the piece's is marked as seen.
        rank: that holds the piece.
        tokens: of the piece; below 0 to take them away.
        nodes: how many have a later piece.
        loads: of all ranks.

    Returns:
        How many nodes hold this piece or a later one.
    """
    node = ranks[rank, NODE]
    seen = 1 if ranks[node, NODE_SEEN] == counters[STAMP] else 0
    ranks[node, NODE_SEEN] = counters[STAMP]
    loads[rank, ACROSS] += tokens * (nodes - seen)
    return nodes + 1 - seen


@jit_lean
def add_exchange(
    pool: Ints, first: Ints, counters: Ints, ranks: Ints, document: int, sign: float, loads: Floats
) -> None:
    """Add (or take away) what a document's pieces send and receive.

    Only needed KV travels: a rank needs the document up to the end of its own last piece there; see
    `flashcp.exchange.needed_tokens`. What crosses nodes is counted as an exchange in two levels
    sends it, once to each node that needs it.
    """
    piece = first[document]
    if pool[piece, NEXT] < 0:
        return
    count = 0
    while piece >= 0:
        pool[count, ORDER] = piece
        count += 1
        piece = pool[piece, NEXT]
    counters[STAMP] += 1
    stamp = counters[STAMP]
    later = nodes = 0  # ranks and nodes that hold a later piece
    for i in range(count - 1, -1, -1):
        piece = pool[i, ORDER]
        rank = pool[piece, RANK]
        start = pool[piece, START]
        tokens = sign * (pool[piece, STOP] - start)
        if counters[PER_NODE] > 0:
            nodes = add_across(counters, ranks, rank, tokens, nodes, loads)
        if ranks[rank, SEEN] != stamp:
            ranks[rank, SEEN] = stamp
            loads[rank, SENT] += tokens * later
            loads[rank, RECEIVED] += sign * start
            later += 1
        else:
            loads[rank, SENT] += tokens * (later - 1)
            loads[rank, RECEIVED] -= tokens


@jit_lean
def account_joins(
    pool: Ints, first: Ints, counters: Ints, document: int, loads: Floats, weights: Floats
) -> None:
    """Count neighbouring pieces on one rank as the one piece that they will be joined to."""
    piece = first[document]
    start = pool[piece, START]
    while pool[piece, NEXT] >= 0:
        after = pool[piece, NEXT]
        rank = pool[after, RANK]
        if rank == pool[piece, RANK]:
            counters[CUTS] -= 1
            add_piece(loads, rank, start, pool[piece, STOP], -1.0, weights)
            add_piece(loads, rank, pool[after, START], pool[after, STOP], -1.0, weights)
            add_piece(loads, rank, start, pool[after, STOP], 1.0, weights)
        else:
            start = pool[after, START]
        piece = after
