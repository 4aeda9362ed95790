"""Puts ranks that exchange much on one node.

Ranks are alike but for the node that they are on, so a placement may be renumbered freely. Swaps of
two ranks of different nodes, the one that saves most first, until none saves anything
(Kernighan and Lin's gain): what crosses nodes falls, and nothing else about the placement changes.
That is of an exchange in one level, where each rank's tokens cross by themselves. In two levels a
token crosses once for each node, so what a swap saves is no sum over pairs; from the first seating
on, swaps are tried in turn on the documents of the two ranks and kept where they save.
"""

from typing import TYPE_CHECKING

import numpy as np

from groundwork.jit import jit, jit_lean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.strategies._shards import Rows

_MOST_SWAPS_A_RANK = 2
_MOST_WORK = 1 << 14  # swaps times ranks: a thousand ranks get sixteen swaps
_MOST_VISITS = 1 << 20  # of pieces and nodes in trying swaps for two levels: a few milliseconds


def pair_tokens(rows: "Rows", cp: int) -> "NDArray[np.int64]":
    """Return the needed tokens that rank r sends to rank q, [cp, cp].

    Args:
        rows: shards, int32 [shards, 4]: rank, document, start, stop.
        cp: CP degree.
    """
    ordered = rows[np.lexsort((rows[:, 2], rows[:, 1]))].astype(np.int64)
    return _pair_tokens(np.ascontiguousarray(ordered), cp)


@jit
def _pair_tokens(rows: "NDArray[np.int64]", cp: int) -> "NDArray[np.int64]":
    """Count for `pair_tokens`; rows are in order of document and start."""
    tokens = np.zeros((cp, cp), dtype=np.int64)
    ends = np.zeros(cp, dtype=np.int64)  # of each rank's last piece in this document
    first = 0
    while first < rows.shape[0]:
        last = first
        while last < rows.shape[0] and rows[last, 1] == rows[first, 1]:
            ends[rows[last, 0]] = rows[last, 3]
            last += 1
        for i in range(first, last):
            holder = rows[i, 0]
            for rank in range(cp):
                if rank != holder and ends[rank] > rows[i, 2]:
                    tokens[holder, rank] += rows[i, 3] - rows[i, 2]
        for i in range(first, last):
            ends[rows[i, 0]] = 0
        first = last
    return tokens


def gather_on_nodes(
    rows: "Rows",
    cp: int,
    ranks_per_node: int,
    *,
    two_level: bool = False,
    seat: "NDArray[np.int64] | None" = None,
) -> "Rows":
    """Renumber the ranks of a placement so that less crosses nodes.

    Args:
        rows: canonical shards, int32 [shards, 4]: rank, document, start, stop.
        cp: CP degree.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node; divides `cp`.
        two_level: count a token once for each node that it crosses to.
        seat: from `pairwise_seats`; None makes them.

    Returns:
        Canonical shards of which no more cross nodes.
    """
    if ranks_per_node in (1, cp):
        return rows
    seat = pairwise_seats(rows, cp, ranks_per_node) if seat is None else seat.copy()
    if two_level:
        ordered = rows[np.lexsort((rows[:, 2], rows[:, 1]))].astype(np.int64)
        as_given = np.arange(cp)  # may be the better one by this count
        if crossing_tokens(ordered, as_given, ranks_per_node) < crossing_tokens(
            ordered, seat, ranks_per_node
        ):
            seat = as_given
        _seat_for_two_levels(ordered, seat, ranks_per_node, _MOST_VISITS)
    moved = rows.copy()
    moved[:, 0] = seat[rows[:, 0]]
    return moved[np.lexsort((moved[:, 2], moved[:, 1], moved[:, 0]))]


def pairwise_seats(rows: "Rows", cp: int, ranks_per_node: int) -> "NDArray[np.int64]":
    """Return where each rank goes by what an exchange in one level crosses nodes with, [cp].

    Arguments as of `gather_on_nodes`.
    """
    both = pair_tokens(rows, cp)
    both = (both + both.T).astype(np.float64)  # whole numbers still, but multiplied faster
    seat = np.arange(cp)  # where each rank goes
    for _ in range(min(_MOST_SWAPS_A_RANK * cp, _MOST_WORK // cp)):
        node = seat // ranks_per_node
        apart = node[:, None] != node[None, :]
        members = (node[:, None] == np.arange(cp // ranks_per_node)).astype(np.float64)
        bound = both @ members  # what ties each rank to each node
        pull = bound[:, node] - bound[np.arange(cp), node][:, None]  # to the other's node
        gain = np.where(apart, pull + pull.T - 2 * both, 0)
        one, other = divmod(int(gain.argmax()), cp)
        if gain[one, other] <= 0:
            break
        seat[one], seat[other] = seat[other], seat[one]
    return seat


@jit
def crossing_tokens(
    rows: "NDArray[np.int64]", seat: "NDArray[np.int64]", ranks_per_node: int
) -> int:
    """Count the tokens that cross nodes in two levels, all ranks together.

    Args:
        rows: shards in order of document and start, [shards, 4].
        seat: where each rank goes, [cp].
        ranks_per_node: ranks that share a node.
    """
    total = 0
    needed = np.zeros(seat.size // ranks_per_node, dtype=np.bool_)
    firsts, lasts = _cut_documents(rows)
    for document in range(firsts.size):
        total += _crossing_of(rows, firsts[document], lasts[document], seat, ranks_per_node, needed)
    return total


@jit
def _cut_documents(rows: "NDArray[np.int64]") -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Return the first row of every document of several shards, and one past its last row."""
    firsts = np.zeros(rows.shape[0], dtype=np.int64)
    lasts = np.zeros(rows.shape[0], dtype=np.int64)
    cut = 0
    first = 0
    for i in range(1, rows.shape[0] + 1):
        if i == rows.shape[0] or rows[i, 1] != rows[first, 1]:
            if i - first > 1:
                firsts[cut] = first
                lasts[cut] = i
                cut += 1
            first = i
    return firsts[:cut], lasts[:cut]


@jit_lean
def _crossing_of(
    rows: "NDArray[np.int64]",
    first: int,
    last: int,
    seat: "NDArray[np.int64]",
    ranks_per_node: int,
    needed: "NDArray[np.bool_]",
) -> int:
    """Count for one document, rows[first:last]; `needed` is room for a flag a node."""
    total = 0
    needed[:] = False
    others = 0  # nodes with a later shard
    for i in range(last - 1, first - 1, -1):
        node = seat[rows[i, 0]] // ranks_per_node
        total += (rows[i, 3] - rows[i, 2]) * (others - needed[node])
        if not needed[node]:
            needed[node] = True
            others += 1
    return total


@jit
def _seat_for_two_levels(
    rows: "NDArray[np.int64]", seat: "NDArray[np.int64]", ranks_per_node: int, most_visits: int
) -> None:
    """Swap seats while a swap lets less cross, within a budget of pieces and nodes looked at."""
    ranks = seat.size
    needed = np.zeros(ranks // ranks_per_node, dtype=np.bool_)
    firsts, lasts = _cut_documents(rows)
    cut = firsts.size
    holds = np.zeros((ranks, cut), dtype=np.bool_)
    for document in range(cut):
        for i in range(firsts[document], lasts[document]):
            holds[rows[i, 0], document] = True
    visits = 0
    improved = True
    while improved:
        improved = False
        for one in range(ranks):
            for other in range(one + 1, ranks):
                if seat[one] // ranks_per_node == seat[other] // ranks_per_node:
                    continue
                before = after = 0
                for document in range(cut):
                    if not (holds[one, document] or holds[other, document]):
                        continue
                    first, last = firsts[document], lasts[document]
                    before += _crossing_of(rows, first, last, seat, ranks_per_node, needed)
                    seat[one], seat[other] = seat[other], seat[one]
                    after += _crossing_of(rows, first, last, seat, ranks_per_node, needed)
                    seat[one], seat[other] = seat[other], seat[one]
                    visits += 2 * (last - first + needed.size)
                visits += cut
                if after < before:
                    seat[one], seat[other] = seat[other], seat[one]
                    improved = True
                if visits > most_visits:
                    return
