"""What a rank attends to in each of its calls; see "Overlap" in docs/design.md.

A plan that overlaps attends in two calls: every shard to its own keys, beside the exchange, then
the shards that do not begin their document to what precedes them in it. Any other plan attends in
one call, to own keys and prefixes together.
"""

from dataclasses import dataclass

import numpy as np

from executor.placement import Indices, Placement, ranges, splits_calls


@dataclass(frozen=True, eq=False)
class Calls:
    """What a rank attends to in place, and what after the exchange.

    Attributes:
        in_place: local rows whose keys are read where they lie: all of them, or none.
        own_lens: lengths of their shards.
        first: local rows before those of shards that wait.
        waiting: the shards that wait, indices into the placement.
        q_lens: their lengths.
        k_lens: their keys that come together: what precedes them, and their own unless `apart`.
        apart: whether own keys are attended to in a call of their own.
    """

    in_place: int
    own_lens: Indices
    first: int
    waiting: Indices
    q_lens: Indices
    k_lens: Indices
    apart: bool


def calls(placed: Placement, rank: int) -> Calls:
    """Return what `rank` attends to in each of its two calls, of which one may be empty."""
    mine, apart = placed.shards(rank), splits_calls(placed.plan)
    size, waits = placed.size[mine], placed.start[mine] > 0
    if not apart:
        # One call for all; without anything that waits its keys need not be copied anywhere.
        waits = np.full(size.size, bool(waits.any()))
    own_lens = size if apart or not waits.any() else size[:0]
    waiting = np.flatnonzero(waits) + mine.start
    return Calls(
        in_place=int(own_lens.sum()),
        own_lens=own_lens,
        first=int(size[~waits].sum()),
        waiting=waiting,
        q_lens=placed.size[waiting],
        k_lens=placed.start[waiting] if apart else placed.stop[waiting],
        apart=apart,
    )


def pieces(placed: Placement, found: Calls) -> tuple[Indices, Indices]:
    """Return the shards that make up waiting shards' keys in order, and whose keys each is of."""
    waiting = found.waiting
    position = np.empty(placed.start.size, dtype=np.int64)
    position[placed.by_document] = np.arange(placed.start.size)
    first = placed.document_splits[placed.document[waiting]]
    number = position[waiting] - first + (0 if found.apart else 1)
    return placed.by_document[ranges(first, number)], np.repeat(np.arange(waiting.size), number)
