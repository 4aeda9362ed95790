"""Puts ranks that exchange much on one node.

Ranks are alike but for the node that they are on, so a placement may be renumbered freely. Swaps of
two ranks of different nodes, the one that saves most first, until none saves anything
(Kernighan and Lin's gain): what crosses nodes falls, and nothing else about the placement changes.
"""

from typing import TYPE_CHECKING

import numpy as np

from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.strategies._shards import Rows

_MOST_SWAPS_A_RANK = 2
_MOST_WORK = 1 << 14  # swaps times ranks: a thousand ranks get sixteen swaps


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


def across_tokens(rows: "Rows", cp: int, ranks_per_node: int) -> int:
    """Return the needed tokens that cross nodes, all ranks together."""
    node = np.arange(cp) // ranks_per_node
    return int(pair_tokens(rows, cp)[node[:, None] != node[None, :]].sum())


def gather_on_nodes(rows: "Rows", cp: int, ranks_per_node: int) -> "Rows":
    """Renumber the ranks of a placement so that less crosses nodes.

    Args:
        rows: canonical shards, int32 [shards, 4]: rank, document, start, stop.
        cp: CP degree.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node; divides `cp`.

    Returns:
        Canonical shards of which no more cross nodes.
    """
    if ranks_per_node in (1, cp):
        return rows
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
    moved = rows.copy()
    moved[:, 0] = seat[rows[:, 0]]
    return moved[np.lexsort((moved[:, 2], moved[:, 1], moved[:, 0]))]
