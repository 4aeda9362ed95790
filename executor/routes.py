"""Which rows each rank sends, receives and joins by an all-gather, in numpy and once a plan.

A rank's keys come from a buffer of what it gathered, R rows, followed by those of its own rows that
it needs beside them. Each waiting shard [start, stop) needs what precedes it in its document as
neighbours, and itself behind that unless own keys are attended to in a call of their own, so `join`
lists the buffer's rows shard by shard; two waiting shards of one document
each have their own copy of their common prefix, because a varlen call reads every segment's keys
from a place of its own.

Gathered are, by exchange: all-gather, every rank's tokens in local order, padded to the largest
rank's; all-gather-non-last, likewise but without every document's last shard.
"""

from dataclasses import dataclass

import numpy as np

from executor.placement import Indices, Placement, ranges
from executor.waiting import Calls, pieces
from flashcp.exchange import Exchange


@dataclass(frozen=True, eq=False)
class Route:
    """One rank's part of an all-gather.

    Attributes:
        padded: rows that each rank gathers, of which `send` may fill fewer.
        send: local rows that go into the send buffer, in order, [sent].
        own: local rows that follow the received ones in the buffer, [own].
        join: rows of the buffer in the order of the waiting call's keys, [keys].
        sent_shards: the shards that are sent, indices into the placement.
        base: where each shard begins in the buffer, -1 where it is not there, [shards].
    """

    padded: int
    send: Indices
    own: Indices
    join: Indices
    sent_shards: Indices
    base: Indices


def padded_rows(placed: Placement) -> int:
    """Return the rows that each rank gathers; 0 where nothing need be."""
    return int(_sent(placed)[1].max()) if placed.plan.cp > 1 else 0


def route(placed: Placement, rank: int, calls: Calls) -> Route:
    """Return `rank`'s part of the plan's all-gather.

    Args:
        placed: the placement.
        rank: the rank.
        calls: what it attends to in place and what after the exchange.
    """
    sent, totals = _sent(placed)
    padded = int(totals.max())
    ends = np.cumsum(sent)
    lands = placed.rank * padded + ends - sent - (np.cumsum(totals) - totals)[placed.rank]
    base = np.where(sent > 0, lands, -1)
    mine = placed.shards(rank)
    piece, _ = pieces(placed, calls)
    base, own = _with_own(placed, rank, np.unique(piece), base, placed.plan.cp * padded)
    return Route(
        padded=padded,
        send=ranges(placed.row[mine], sent[mine]),
        own=own,
        join=ranges(base[piece], placed.size[piece]),
        sent_shards=np.flatnonzero(sent[mine]) + mine.start,
        base=base,
    )


def _sent(placed: Placement) -> tuple[Indices, Indices]:
    """Return the rows sent of each shard, [shards], and by each rank, [ranks]."""
    travels = np.ones(placed.start.size, dtype=bool)
    if placed.plan.exchange is Exchange.ALL_GATHER_NON_LAST:
        travels = placed.stop < placed.plan.lengths[placed.document]
    sent = np.where(travels, placed.size, 0)
    ends = np.concatenate([[0], np.cumsum(sent)])
    return sent, np.diff(ends[placed.splits])


def _with_own(
    placed: Placement, rank: int, needed: Indices, base: Indices, received: int
) -> tuple[Indices, Indices]:
    """Give places after the received rows to own shards, unless a full all-gather brings them."""
    if placed.plan.exchange is Exchange.ALL_GATHER:
        return base, np.zeros(0, dtype=np.int64)
    own = needed[placed.rank[needed] == rank]
    own = own[np.argsort(placed.row[own])]
    base = base.copy()
    base[own] = received + np.cumsum(placed.size[own]) - placed.size[own]
    return base, ranges(placed.row[own], placed.size[own])
