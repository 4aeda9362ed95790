"""Which rows each rank sends, receives and joins, where keys come together before attention.

All in numpy and once a plan. A rank's keys come from a buffer of what it received, R rows, followed
by those of its own rows that it needs beside them. Each waiting shard [start, stop) needs its
document up to `stop` as neighbours, so `join` lists the buffer's rows shard by shard; two waiting
shards of one document each have their own copy of their common prefix, because a varlen call reads
every segment's keys from a place of its own.

What a rank receives lies, by exchange: all-gather, every rank's tokens in local order, padded to
the largest rank's; all-gather-non-last, likewise but without every document's last shard;
all-to-all-needed, from each rank in turn what this one attends to, by document and start.
"""

from dataclasses import dataclass

import numpy as np

from executor.placement import Indices, Placement, ranges, splits_calls
from flashcp.exchange import Exchange


@dataclass(frozen=True, eq=False)
class Route:
    """One rank's part of an exchange.

    Attributes:
        moves: whether anything is exchanged at all; the same on every rank.
        send: local rows that go into the send buffer, in order, [sent].
        send_splits: rows of the send buffer for each rank.
        recv_splits: rows received from each rank.
        padded: rows that each rank gathers, of which `send` may fill fewer; 0 for all-to-all.
        own: local rows that follow the received ones in the buffer, [own].
        join: rows of the buffer in the order of the waiting call's keys, [keys].
        in_place: local rows, the first ones, that are attended without the buffer.
        local_lens: lengths of the shards attended in place.
        q_lens: lengths of the waiting shards.
        k_lens: keys of the waiting shards.
    """

    moves: bool
    send: Indices
    send_splits: list[int]
    recv_splits: list[int]
    padded: int
    own: Indices
    join: Indices
    in_place: int
    local_lens: Indices
    q_lens: Indices
    k_lens: Indices

    @property
    def received(self) -> int:
        """Rows of the buffer that the exchange fills."""
        return sum(self.recv_splits)


def route(placed: Placement, rank: int) -> Route:
    """Return `rank`'s part of the plan's exchange, which is not a ring."""
    exchange = placed.plan.exchange
    mine = placed.shards(rank)
    starts, stops, size = placed.start[mine], placed.stop[mine], placed.size[mine]
    # Without anything that waits on this rank its keys need not be copied anywhere.
    in_place = starts == 0 if splits_calls(placed.plan) or not (starts > 0).any() else starts < 0
    waiting = np.flatnonzero(~in_place) + mine.start
    if exchange is Exchange.ALL_TO_ALL_NEEDED:
        send, send_splits, base, recv_splits, moves = _needed(placed, rank)
        padded = 0
    else:
        send, base, padded = _gathered(placed, rank)
        moves = padded > 0 and placed.plan.cp > 1
        padded = padded if moves else 0
        send_splits = recv_splits = [padded] * placed.plan.cp
    pieces, joined_from = _pieces(placed, waiting)
    base, own = _with_own(placed, rank, pieces, base, sum(recv_splits))
    return Route(
        moves=moves,
        send=send if moves else np.zeros(0, dtype=np.int64),
        send_splits=send_splits,
        recv_splits=recv_splits,
        padded=padded,
        own=own,
        join=ranges(base[joined_from], placed.size[joined_from]),
        in_place=int(size[in_place].sum()),
        local_lens=size[in_place],
        q_lens=placed.size[waiting],
        k_lens=placed.stop[waiting] if len(stops) else stops,
    )


def _gathered(placed: Placement, rank: int) -> tuple[Indices, Indices, int]:
    """Return local rows to send, where each shard lands (-1: nowhere), and the padded size."""
    travels = np.ones(placed.start.size, dtype=bool)
    if placed.plan.exchange is Exchange.ALL_GATHER_NON_LAST:
        travels = placed.stop < placed.plan.lengths[placed.document]
    sent = np.where(travels, placed.size, 0)
    ends = np.concatenate([[0], np.cumsum(sent)])
    first = ends[placed.splits[:-1]]
    padded = int((ends[placed.splits[1:]] - first).max())
    lands = placed.rank * padded + ends[:-1] - first[placed.rank]
    mine = placed.shards(rank)
    send = ranges(placed.row[mine], sent[mine])
    return send, np.where(travels, lands, -1), padded


def _needed(placed: Placement, rank: int) -> tuple[Indices, list[int], Indices, list[int], bool]:
    """Return rows to send, to whom, where shards land, from whom, and whether any rank sends."""
    cp = placed.plan.cp
    # How far into each document each rank's last shard there begins; it needs all before that.
    reach = np.zeros((cp, placed.plan.lengths.size), dtype=np.int64)
    np.maximum.at(reach, (placed.rank, placed.document), placed.start)
    order = placed.by_document
    sorted_ranks = placed.rank[order]
    begins = placed.start < reach[:, placed.document]  # [ranks, shards]: is it needed there?
    begins[placed.rank, np.arange(placed.rank.size)] = False
    mine = order[sorted_ranks == rank]
    targets = [mine[begins[target, mine]] for target in range(cp)]
    send_shards = np.concatenate(targets)
    send = ranges(placed.row[send_shards], placed.size[send_shards])
    send_splits = [int(placed.size[target].sum()) for target in targets]
    wanted = order[begins[rank, order]]
    wanted = wanted[np.argsort(placed.rank[wanted], kind="stable")]
    base = np.full(placed.start.size, -1, dtype=np.int64)
    base[wanted] = np.cumsum(placed.size[wanted]) - placed.size[wanted]
    recv_splits = np.bincount(placed.rank[wanted], placed.size[wanted], minlength=cp)
    return send, send_splits, base, [int(rows) for rows in recv_splits], bool(begins.any())


def _pieces(placed: Placement, waiting: Indices) -> tuple[Indices, Indices]:
    """Return the distinct shards that make up waiting shards' keys, and all of them in order."""
    position = np.empty(placed.start.size, dtype=np.int64)
    position[placed.by_document] = np.arange(placed.start.size)
    first = placed.document_splits[placed.document[waiting]]
    last = position[waiting]
    joined_from = placed.by_document[ranges(first, last - first + 1)]
    return np.unique(joined_from), joined_from


def _with_own(
    placed: Placement, rank: int, pieces: Indices, base: Indices, received: int
) -> tuple[Indices, Indices]:
    """Give places after the received rows to own pieces, unless a full all-gather brings them."""
    if placed.plan.exchange is Exchange.ALL_GATHER and received > 0:
        return base, np.zeros(0, dtype=np.int64)
    own = pieces[placed.rank[pieces] == rank]
    own = own[np.argsort(placed.row[own])]
    base = base.copy()
    base[own] = received + np.cumsum(placed.size[own]) - placed.size[own]
    return base, ranges(placed.row[own], placed.size[own])
