"""Which rows of whose KV each rank attends to at each step of a ring.

At step i rank r holds the KV of rank (r - i) mod N. Its own it attends to causally, one segment a
document. Of another rank's, a query shard sees the shards of its document that end before it
begins: a prefix of what that rank holds of the document. Query shards of a document that see the
same prefix share a segment; as in `flashcp.ring`, whose counts the predictions use, but with the
rows as well.
"""

from dataclasses import dataclass

import numpy as np

from executor.placement import Indices, Placement, ranges


@dataclass(frozen=True, eq=False)
class RingStep:
    """One rank's attention at one step.

    Attributes:
        queries: local rows that see any of the KV held, [q].
        keys: rows of the KV held that they see, [k]; a row for each segment that sees it.
        q_lens: queries of each segment.
        k_lens: keys of each segment.
    """

    queries: Indices
    keys: Indices
    q_lens: Indices
    k_lens: Indices


def own_lens(placed: Placement, rank: int) -> Indices:
    """Return the tokens of each document that `rank` holds of, the segments of step 0."""
    mine = placed.shards(rank)
    document = placed.document[mine]
    opens = np.ones(document.size, dtype=bool)
    opens[1:] = document[1:] != document[:-1]
    return np.add.reduceat(placed.size[mine], np.flatnonzero(opens)) if document.size else document


def ring_step(placed: Placement, rank: int, step: int) -> RingStep:
    """Return what `rank` attends to at `step`, from 1 to N - 1."""
    mine, held = placed.shards(rank), placed.shards((rank - step) % placed.plan.cp)
    # Both are sorted by document and start, and so are document and stop together.
    far = int(placed.plan.lengths.max()) + 1
    held_stops = placed.document[held] * far + placed.stop[held]
    before = np.concatenate([[0], np.cumsum(placed.size[held])])
    first = before[np.searchsorted(placed.document[held], placed.document[mine])]
    ends = placed.document[mine] * far + placed.start[mine]
    seen = before[np.searchsorted(held_stops, ends, side="right")] - first
    seen = np.maximum(seen, 0)
    queries = np.flatnonzero(seen)
    document, seen, first = placed.document[mine][queries], seen[queries], first[queries]
    size = placed.size[mine][queries]
    opens = np.ones(queries.size, dtype=bool)
    opens[1:] = (document[1:] != document[:-1]) | (seen[1:] != seen[:-1])
    runs = np.flatnonzero(opens)
    return RingStep(
        queries=ranges(placed.row[mine][queries], size),
        keys=ranges(first[runs], seen[runs]),
        q_lens=np.add.reduceat(size, runs) if runs.size else runs,
        k_lens=seen[runs],
    )
