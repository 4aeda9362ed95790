"""Where each token of a pack lies: the local order of every rank, in numpy, without torch.

A rank's tokens lie shard by shard. Where the plan overlaps its exchange with attention, the shards
that begin their document come first and those that wait for a prefix after them, so that the call
that waits reads and writes one contiguous slice in place; otherwise, and within each of the two, by
document and start. Every rank can compute every rank's order, so nothing about it is ever sent.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flashcp.exchange import Exchange
from flashcp.plans import Plan

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Placement:
    """The shards of a plan in every rank's local order.

    Attributes:
        plan: the plan.
        document: each shard's document, int64 [shards], rank by rank in local order.
        start: its first token within the document.
        stop: one past its last.
        rank: the rank that holds it.
        row: the local row of its first token on that rank.
        splits: rank r holds the shards splits[r]:splits[r + 1], [cp + 1].
    """

    plan: Plan
    document: Indices
    start: Indices
    stop: Indices
    rank: Indices
    row: Indices
    splits: Indices

    @property
    def size(self) -> Indices:
        """Tokens of each shard."""
        return self.stop - self.start

    @cached_property
    def by_document(self) -> Indices:
        """The shards sorted by document and start, [shards]."""
        return np.lexsort((self.start, self.document)).astype(np.int64)

    @cached_property
    def document_splits(self) -> Indices:
        """Document d has the shards by_document[splits[d]:splits[d + 1]], [documents + 1]."""
        documents = np.arange(self.plan.lengths.size + 1)
        return np.searchsorted(self.document[self.by_document], documents).astype(np.int64)

    @cached_property
    def needed(self) -> NDArray[np.bool_]:
        """Which ranks need which shards of others, [ranks, shards], by document and start."""
        cp, order = self.plan.cp, self.by_document
        # How far into each document each rank's last shard there begins; it needs all before that.
        reach = np.zeros((cp, self.plan.lengths.size), dtype=np.int64)
        np.maximum.at(reach, (self.rank, self.document), self.start)
        needed: NDArray[np.bool_] = self.start[order] < reach[:, self.document[order]]
        needed[self.rank[order], np.arange(order.size)] = False
        return needed

    def shards(self, rank: int) -> slice:
        """Return where `rank`'s shards are."""
        return slice(int(self.splits[rank]), int(self.splits[rank + 1]))

    def tokens(self, rank: int) -> int:
        """Return how many tokens `rank` holds."""
        return int(self.plan.rank_tokens[rank])

    @property
    def most_tokens(self) -> int:
        """Tokens of the rank that holds most."""
        return int(self.plan.rank_tokens.max())


def place(plan: Plan) -> Placement:
    """Order the shards of `plan` on every rank."""
    waits = plan.start > 0 if splits_calls(plan) else np.zeros(plan.shards, dtype=bool)
    order = np.lexsort((plan.start, plan.document, waits, plan.rank))
    document, start, stop, rank = (
        array[order].astype(np.int64) for array in (plan.document, plan.start, plan.stop, plan.rank)
    )
    ends = np.cumsum(stop - start)
    splits = plan.rank_splits
    before = np.concatenate([[0], ends])[splits[:-1]]
    row = ends - (stop - start) - before[rank]
    return Placement(plan, document, start, stop, rank, row.astype(np.int64), splits)


def splits_calls(plan: Plan) -> bool:
    """Tell whether ranks attend in two calls: to own keys, and after the exchange to prefixes."""
    return plan.overlap and plan.exchange is not Exchange.RING


def ranges(first: NDArray[np.int64], size: NDArray[np.int64]) -> Indices:
    """Concatenate the ranges [first, first + size), in order; int64 [sum of sizes]."""
    ends = np.cumsum(size)
    total = int(ends[-1]) if size.size else 0
    indices: Indices = np.arange(total, dtype=np.int64) + np.repeat(first - (ends - size), size)
    return indices
