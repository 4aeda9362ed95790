"""How many messages a needed-only exchange posts, and what posting them takes the host.

Every piece of a prefix is sent from where it lies to where the kernel reads it, as one message for
K and one for V, and again for each part by heads: nothing is copied, but the host creates each and
hands it to NCCL. On one node these are tens a layer, posted while the GPU still attends for the
layer before. On several nodes there may be hundreds or thousands, which take the host longer than
the GPU needs for the layer: then the rows for one peer are packed into one message a hop
(`Plan.bundled`), for two moves of every row each way. Of `auto`'s plans with 8 KV heads none is
bundled on one node or two, and on four 52 to 88%, which are predicted to take 10 to 19% less than
the same plans in pieces, and 2 to 3% more than if posting took no time (benchmarks/executor).

A count of messages is a count of tokens in which every shard has one: its position in its document.
"""

from typing import TYPE_CHECKING

import numpy as np

from flashcp.document_order import in_documents
from flashcp.exchange import needed_tokens, two_level_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray


def needed_pieces(
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    cp: int,
    ranks_per_node: int | None = None,
) -> "NDArray[np.int64]":
    """Count the pieces that each rank sends and receives, in all hops, one way.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        rank: its rank, [shards].
        start: its first token, [shards].
        cp: ranks.
        ranks_per_node: of an exchange in two levels, ranks that share a node; None in one level.

    Returns:
        Pieces, [cp].
    """
    order = in_documents(document, start)
    ordered = document[order]
    position = np.empty(order.size, dtype=np.int32)
    position[order] = np.arange(order.size) - np.searchsorted(ordered, ordered)
    counts: tuple[NDArray[np.int64], ...]
    if ranks_per_node is None:
        counts = needed_tokens(document, rank, position, position + np.int32(1), cp)
    else:
        counts = two_level_counts(
            document, rank, position, position + np.int32(1), cp, ranks_per_node
        )[:4]
    pieces: NDArray[np.int64] = np.sum(counts, axis=0)
    return pieces


def posting_us(
    pieces: "NDArray[np.int64]", chunks: int, message_us: float
) -> "NDArray[np.float64]":
    """Return what posting takes each rank's host one way, [cp].

    Args:
        pieces: that each rank sends and receives, [cp].
        chunks: parts by heads that KV travels in.
        message_us: what one message takes it (`Profile.message_us`).
    """
    return pieces.astype(np.float64) * (2.0 * message_us * chunks)
