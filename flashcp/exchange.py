"""How KV reaches the ranks that need it, and how many tokens of it each kind of exchange moves.

Five kinds. `ring` passes every rank's KV around, N-1 steps. `all-gather` gives every token to
every rank. `all-gather-non-last` (FlashCP) leaves out what nobody else attends to: undivided
documents and every document's last shard; as all-gather wants equal sizes, each rank's part is
padded to the largest. `all-to-all-needed` sends each rank only the prefixes that its shards attend
to. On 128k packs of WLB-LLM lengths at CP 8 it moves a few percent of what the first two do.

`all-to-all-two-level` moves the same where ranks span nodes, but lets what several ranks of another
node need cross once: rank h sends it to the rank of that node in its own place, on its rail, and
that one passes it on inside the node, together with what ranks of one node send each other.
Two all-to-alls, one over each rail and then one inside each node.

Tokens here are counted once for K and V together, one way; the backward exchange of dK and dV moves
as many the other way.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from flashcp.document_order import in_documents
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Exchange(StrEnum):
    """How KV reaches the ranks that need it."""

    RING = "ring"
    ALL_GATHER = "all-gather"
    ALL_GATHER_NON_LAST = "all-gather-non-last"
    ALL_TO_ALL_NEEDED = "all-to-all-needed"
    ALL_TO_ALL_TWO_LEVEL = "all-to-all-two-level"


def across_uniform(
    exchange: Exchange, largest_tokens: float, cp: int, ranks_per_node: int
) -> tuple[float, float]:
    """Count what crosses nodes where every rank sends alike: a ring or an all-gather.

    Each node takes in the parts of all other nodes' ranks once, spread over its ranks; in a `ring`
    the one rank whose neighbour is on the next node sends all that passes.

    Args:
        exchange: `ring`, `all-gather` or `all-gather-non-last`.
        largest_tokens: of the largest part of a rank, to which the others are padded.
        cp: ranks.
        ranks_per_node: ranks that share a node; divides `cp`.

    Returns:
        Tokens sent across nodes by all ranks together, and by the rank that sends most.
    """
    if ranks_per_node == cp:
        return 0.0, 0.0
    nodes = cp // ranks_per_node
    if exchange is Exchange.RING:
        passed = (cp - 1) * largest_tokens
        return nodes * passed, passed
    taken = (cp - ranks_per_node) * largest_tokens
    return nodes * taken, taken / ranks_per_node


@jit
def non_last_tokens(
    lengths: "NDArray[np.int32]",
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
) -> "NDArray[np.int64]":
    """Count each rank's tokens in shards that are not the last of their document (Eq. 5).

    Args:
        lengths: tokens of each packed document, [documents].
        document: each shard's document, [shards].
        rank: its rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.

    Returns:
        Tokens, [cp].
    """
    tokens = np.zeros(cp, dtype=np.int64)
    for shard in range(document.size):
        if stop[shard] < lengths[document[shard]]:
            tokens[rank[shard]] += stop[shard] - start[shard]
    return tokens


def needed_tokens(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count the tokens each rank sends and receives when only what is attended to is sent.

    A rank needs each of its documents up to the end of its own last shard there; so the holder of a
    shard sends it once to every other rank that holds a later shard of that document.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        rank: its rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.

    Returns:
        Tokens sent, [cp]; and received, [cp].
    """
    order = in_documents(document, start)
    return _needed_tokens(order, document, rank, start, stop, cp)


def across_tokens(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count how many of the needed tokens each rank sends to, and receives from, other nodes.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        rank: its rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node; divides `cp`.

    Returns:
        Tokens sent, [cp]; and received, [cp]; each a part of those of `needed_tokens`.
    """
    order = in_documents(document, start)
    return _across_tokens(order, document, rank, start, stop, cp, ranks_per_node)


def two_level_tokens(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], ...]":
    """Count the tokens each rank sends and receives across and inside nodes in two levels.

    Rank h sends what anyone on node m needs of it to rank m * ranks_per_node + h % ranks_per_node,
    once; that one sends it to each rank of node m that needs it, but to itself. On its own node h
    sends to each directly.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        rank: its rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node; divides `cp`.

    Returns:
        Tokens sent across, received across, sent inside, received inside; [cp] each.
    """
    return two_level_counts(document, rank, start, stop, cp, ranks_per_node)[:4]


def relayed_tokens(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], ...]":
    """Count the tokens that each rank passes on inside its node in two levels; arguments as above.

    Backward it adds up, for every token that came across, the gradients of the ranks to which it
    passed that on, and its own where it needs the token too, before their sum goes back across.

    Returns:
        Tokens passed on, once for each receiver, [cp]: a part of those sent inside; and gradients
        added up, in tokens, [cp].
    """
    return two_level_counts(document, rank, start, stop, cp, ranks_per_node)[4:]


def two_level_counts(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], ...]":
    """Return what `two_level_tokens` and `relayed_tokens` return, counted in one pass."""
    order = in_documents(document, start)
    return _two_level_tokens(order, document, rank, start, stop, cp, ranks_per_node)


@jit
def _needed_tokens(
    order: "NDArray[np.int64]",
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count for `needed_tokens`; `order` sorts the shards by document and start."""
    sent = np.zeros(cp, dtype=np.int64)
    received = np.zeros(cp, dtype=np.int64)
    seen = np.full(cp, -1, dtype=np.int64)  # the last document in which each rank was met
    later = 0  # ranks that hold a later shard of this document
    # From each document's end to its start, so that `later` counts who attends to a shard.
    for i in range(order.size - 1, -1, -1):
        shard = order[i]
        tokens = stop[shard] - start[shard]
        r = rank[shard]
        if i == order.size - 1 or document[order[i + 1]] != document[shard]:
            later = 0
        if seen[r] != document[shard]:
            seen[r] = document[shard]
            sent[r] += tokens * later
            received[r] += start[shard]
            later += 1
        else:
            sent[r] += tokens * (later - 1)
            received[r] -= tokens
    return sent, received


@jit
def _across_tokens(
    order: "NDArray[np.int64]",
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count for `across_tokens`; `order` sorts the shards by document and start."""
    sent = np.zeros(cp, dtype=np.int64)
    received = np.zeros(cp, dtype=np.int64)
    seen = np.full(cp, -1, dtype=np.int64)  # the last document in which each rank was met
    later = np.zeros(cp // ranks_per_node, dtype=np.int64)  # ranks of each node with later shards
    everywhere = 0  # their sum
    for i in range(order.size - 1, -1, -1):
        shard = order[i]
        if i == order.size - 1 or document[order[i + 1]] != document[shard]:
            later[:] = 0
            everywhere = 0
        tokens = stop[shard] - start[shard]
        r = rank[shard]
        node = r // ranks_per_node
        sent[r] += tokens * (everywhere - later[node])
        if later[node] > 0:
            for neighbour in range(node * ranks_per_node, (node + 1) * ranks_per_node):
                if seen[neighbour] == document[shard]:
                    received[neighbour] -= tokens
        if seen[r] != document[shard]:
            seen[r] = document[shard]
            received[r] += start[shard]
            later[node] += 1
            everywhere += 1
    return sent, received


@jit
def _two_level_tokens(
    order: "NDArray[np.int64]",
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int,
) -> "tuple[NDArray[np.int64], ...]":
    """Count for `two_level_counts`; `order` sorts the shards by document and start."""
    across_sent = np.zeros(cp, dtype=np.int64)
    across_received = np.zeros(cp, dtype=np.int64)
    inside_sent = np.zeros(cp, dtype=np.int64)
    inside_received = np.zeros(cp, dtype=np.int64)
    passed = np.zeros(cp, dtype=np.int64)
    summed = np.zeros(cp, dtype=np.int64)
    seen = np.full(cp, -1, dtype=np.int64)  # the last document in which each rank was met
    later = np.zeros(cp // ranks_per_node, dtype=np.int64)  # ranks of each node with later shards
    for i in range(order.size - 1, -1, -1):
        shard = order[i]
        if i == order.size - 1 or document[order[i + 1]] != document[shard]:
            later[:] = 0
        tokens = stop[shard] - start[shard]
        r = rank[shard]
        home = r // ranks_per_node
        for node in range(later.size):
            if later[node] == 0:
                continue
            # The rank of this node that holds the shard or gets it first; does it need it itself?
            first = node * ranks_per_node + r % ranks_per_node
            has = seen[first] == document[shard]
            if node != home:
                across_sent[r] += tokens
                across_received[first] += tokens
                passed[first] += tokens * (later[node] - has)
                summed[first] += tokens * later[node]
            inside_sent[first] += tokens * (later[node] - has)
            if has:
                inside_received[first] -= tokens  # of all that lies before its last shard
        if seen[r] != document[shard]:
            seen[r] = document[shard]
            inside_received[r] += start[shard]
            later[home] += 1
    return across_sent, across_received, inside_sent, inside_received, passed, summed


def waiting_tokens(
    rank: "NDArray[np.int32]", start: "NDArray[np.int32]", stop: "NDArray[np.int32]", cp: int
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count the tokens that precede each rank's shards, and those of shards that have such.

    Args:
        rank: each shard's rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.

    Returns:
        Keys of the call over what precedes shards, [cp]; its queries, [cp].
    """
    prefix = np.bincount(rank, start, minlength=cp)
    waiting = np.bincount(rank, np.where(start > 0, stop - start, 0), minlength=cp)
    return prefix.astype(np.int64), waiting.astype(np.int64)


@jit
def own_prefix_tokens(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Count each rank's tokens that precede other shards of its own.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        rank: its rank, [shards].
        start: its first token, [shards].
        stop: one past its last token, [shards].
        cp: ranks.

    Returns:
        Tokens, once for each own shard that they precede, [cp]; and once, [cp].
    """
    repeated = np.zeros(cp, dtype=np.int64)
    preceding = np.zeros(cp, dtype=np.int64)
    before = 0
    for i in range(1, document.size):
        if document[i] != document[i - 1] or rank[i] != rank[i - 1]:
            before = 0
            continue
        tokens = stop[i - 1] - start[i - 1]
        before += tokens
        preceding[rank[i]] += tokens
        repeated[rank[i]] += before
    return repeated, preceding


def waiting_segments(
    start: "NDArray[np.int32]", stop: "NDArray[np.int32]", splits: "NDArray[np.integer]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]":
    """Return the call over what precedes shards: its queries and keys a shard, and its splits.

    Args:
        start: each shard's first token, [shards], rank by rank.
        stop: one past its last token, [shards].
        splits: rank r holds the shards splits[r]:splits[r + 1], [cp + 1].

    Returns:
        Query tokens, [waiting]; key tokens, [waiting]; splits of the shards that wait, [cp + 1].
    """
    waits = start > 0
    before = np.zeros(waits.size + 1, dtype=np.int64)
    np.cumsum(waits, out=before[1:])
    prefixes = start[waits].astype(np.int64)
    return stop[waits] - prefixes, prefixes, before[splits]
