"""Where each message of a needed-only exchange starts and lands, in numpy and once a plan.

A waiting shard [start, stop) needs what precedes it in its document as neighbours, so the kernel
reads its keys from a segment of `start` rows; where own keys are not attended to in a call of their
own, the shard's follow there. Every piece of a prefix is one shard of another rank, contiguous
there as well. So it is sent from where it lies to where the kernel reads it, as a message of its
own, and what is left to copy is earlier shards of a rank's own and, where a rank holds several
waiting shards of one document, their common prefix, which lands in the last one's segment and is
copied to the others.

In two levels, what several ranks of a node need comes to one of them, the sender's rail, from which
it is passed on. It lands in that rank's own segment if it needs it too, else in transit rows behind
the segments. So there are one or two hops, each a set of messages.

Backward each message goes the other way round: a hop's receiver returns the gradient of the rows
where they landed, and the sender adds up what comes back.

Where KV travels in parts by heads (`Plan.head_chunks`), a part's rows lie apart in k and v, which
no message can carry: then the rows that others need are packed, once a part, and sent from there.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from executor.placement import Indices, Placement, ranges
from executor.waiting import calls, pieces


@dataclass(frozen=True)
class Message:
    """One message of this rank's.

    Attributes:
        peer: the rank at the other end.
        own: whether the rows are of this rank's KV, packed or not, else of its landing.
        start: the first row here.
        stop: one past the last.
    """

    peer: int
    own: bool
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many they are."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Hop:
    """Messages that travel at one time; between two ranks in the order of the lists."""

    sends: tuple[Message, ...]
    recvs: tuple[Message, ...]


@dataclass(frozen=True, eq=False)
class Landing:
    """How one rank's keys come together.

    Attributes:
        keys: rows of the landing that the waiting call reads.
        transit: rows behind them that are only passed on.
        hops: one, or two where nodes are known; none where no rank sends anything.
        home: for each local row whose keys are not read where they lie, its row of the landing.
        prefix_from: local rows that also are in the prefix of a later own shard.
        prefix_to: where they go, rows of the landing.
        common_from: rows of the landing where a common prefix lands.
        common_to: where it is copied to.
    """

    keys: int
    transit: int
    hops: tuple[Hop, ...]
    home: Indices
    prefix_from: Indices
    prefix_to: Indices
    common_from: Indices
    common_to: Indices


@dataclass(frozen=True, eq=False)
class Packed:
    """How own rows are sent that are packed before.

    Attributes:
        rows: the local rows that others need, in order; every row of the rank's shards that are
            not their document's last.
        hops: a landing's, whose messages of own rows start from the packed ones.
    """

    rows: Indices
    hops: tuple[Hop, ...]


def packed(hops: tuple[Hop, ...]) -> Packed:
    """Return how the own rows that these messages send are sent once they are packed."""
    sent = sorted({(m.start, m.stop) for hop in hops for m in hop.sends if m.own})
    begins = np.array([begin for begin, _ in sent], dtype=np.int64)
    sizes = np.array([end - begin for begin, end in sent], dtype=np.int64)
    # Every message is one shard, so two of them are of the same rows or of none in common.
    places = dict(zip(begins.tolist(), (np.cumsum(sizes) - sizes).tolist(), strict=True))

    def moved(message: Message) -> Message:
        if not message.own:
            return message
        start = places[message.start]
        return replace(message, start=start, stop=start + message.rows)

    return Packed(
        rows=ranges(begins, sizes),
        hops=tuple(replace(hop, sends=tuple(map(moved, hop.sends))) for hop in hops),
    )


def landing(placed: Placement, rank: int) -> Landing:
    """Return how `rank`'s keys come together by the plan's needed-only exchange."""
    found = calls(placed, rank)
    segment_ends = np.cumsum(found.k_lens)
    begins = segment_ends - found.k_lens
    piece, segment = pieces(placed, found)
    place, size = begins[segment] + placed.start[piece], placed.size[piece]
    own = placed.rank[piece] == rank
    home = found.waiting[segment] == piece
    documents = placed.document[found.waiting]
    last = np.zeros(documents.size, dtype=bool)  # the segment of the document's last shard here
    if documents.size:
        last[:-1] = documents[1:] != documents[:-1]
        last[-1] = True
    lands = np.full(placed.start.size, -1, dtype=np.int64)
    arrives = ~own & last[segment]
    lands[piece[arrives]] = place[arrives]
    again, common = own & ~home, ~own & ~last[segment]
    needed = placed.needed
    keys = int(found.k_lens.sum())
    hops, transit = _hops(placed, rank, needed, lands, keys)
    return Landing(
        keys=keys,
        transit=transit,
        hops=hops if needed.any() else (),
        home=ranges(place[home], size[home]),
        prefix_from=ranges(placed.row[piece[again]], size[again]),
        prefix_to=ranges(place[again], size[again]),
        common_from=ranges(lands[piece[common]], size[common]),
        common_to=ranges(place[common], size[common]),
    )


def _hops(
    placed: Placement, rank: int, needed: NDArray[np.bool_], lands: Indices, keys: int
) -> tuple[tuple[Hop, ...], int]:
    """Return the messages of each hop, and how many rows land only to be passed on.

    Args:
        placed: the placement.
        rank: this rank.
        needed: which ranks need which shards, [ranks, shards], by document and start.
        lands: where each shard lands that this rank needs, [shards].
        keys: rows of the landing before the transit rows.
    """
    order, per_node = placed.by_document, placed.plan.ranks_per_node
    holder = placed.rank[order]

    def messages(peers: Indices, which: Indices) -> tuple[Message, ...]:
        made = []
        for peer, shard in zip(peers.tolist(), order[which].tolist(), strict=True):
            own = int(placed.rank[shard]) == rank
            start = int(placed.row[shard] if own else lands[shard])
            made.append(Message(peer, own, start, start + int(placed.size[shard])))
        return tuple(made)

    mine, wanted = np.flatnonzero(holder == rank), np.flatnonzero(needed[rank])
    if per_node is None:
        which, peers = np.nonzero(needed[:, mine].T)
        return (Hop(messages(peers, mine[which]), messages(holder[wanted], wanted)),), 0
    node, rail = divmod(rank, per_node)
    by_node = np.logical_or.reduce(needed.reshape(-1, per_node, order.size), axis=1)
    by_node[holder // per_node, np.arange(order.size)] = False
    which, nodes = np.nonzero(by_node[:, mine].T)
    relayed = np.flatnonzero(by_node[node] & (holder % per_node == rail))
    transit = order[relayed][~needed[rank, relayed]]
    lands = lands.copy()
    lands[transit] = keys + np.cumsum(placed.size[transit]) - placed.size[transit]
    across = Hop(messages(nodes * per_node + rail, mine[which]), messages(holder[relayed], relayed))
    held, first = np.sort(np.concatenate([mine, relayed])), node * per_node
    inside = needed[first : first + per_node, held]
    inside[rail] = False
    which, neighbours = np.nonzero(inside.T)
    passed = np.setdiff1d(wanted, relayed)
    return (
        across,
        Hop(
            messages(first + neighbours, held[which]),
            # On this node the holder itself passes a shard on, else the rank on its rail.
            messages(first + holder[passed] % per_node, passed),
        ),
    ), int(placed.size[transit].sum())
