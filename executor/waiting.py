"""What a rank attends to in place, and what waits for the exchange."""

from dataclasses import dataclass

import numpy as np

from executor.placement import Indices, Placement, ranges, splits_calls


@dataclass(frozen=True, eq=False)
class Calls:
    """What a rank attends to in place and what after the exchange.

    Attributes:
        in_place: local rows, the first ones, that are attended where they lie.
        local_lens: lengths of their shards.
        waiting: the other shards, indices into the placement.
        q_lens: their lengths.
        k_lens: their keys.
    """

    in_place: int
    local_lens: Indices
    waiting: Indices
    q_lens: Indices
    k_lens: Indices


def calls(placed: Placement, rank: int) -> Calls:
    """Return what `rank` attends to in each of its two calls, of which one may be empty."""
    mine = placed.shards(rank)
    starts, size = placed.start[mine], placed.size[mine]
    # Without anything that waits on this rank its keys need not be copied anywhere.
    local = starts == 0 if splits_calls(placed.plan) or not (starts > 0).any() else starts < 0
    waiting = np.flatnonzero(~local) + mine.start
    return Calls(
        in_place=int(size[local].sum()),
        local_lens=size[local],
        waiting=waiting,
        q_lens=placed.size[waiting],
        k_lens=placed.stop[waiting],
    )


def pieces(placed: Placement, waiting: Indices) -> tuple[Indices, Indices]:
    """Return the shards that make up waiting shards' keys in order, and whose keys each is of."""
    position = np.empty(placed.start.size, dtype=np.int64)
    position[placed.by_document] = np.arange(placed.start.size)
    first = placed.document_splits[placed.document[waiting]]
    number = position[waiting] - first + 1
    return placed.by_document[ranges(first, number)], np.repeat(np.arange(waiting.size), number)
