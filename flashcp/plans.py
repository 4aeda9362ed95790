"""A plan: which rank holds which tokens of a pack, and how KV is exchanged.

Struct of arrays, one entry a shard, in rank order and within a rank in its local token order. Every
strategy makes its shards in canonical form: sorted by rank, document and start, neighbouring ranges
of one document on one rank joined. So equal decisions give equal bytes, and the fingerprint that
ranks compare before they exchange anything is a hash of these arrays alone.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp.copied import LANDING, Held
from flashcp.errors import PlanError
from flashcp.exchange import (
    Exchange,
    needed_tokens,
    non_last_tokens,
    own_prefix_tokens,
    two_level_counts,
    waiting_tokens,
)
from flashcp.messages import needed_pieces
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_RANKS = 1024
# Parts in which `auto` lets KV travel: each has messages of its own, which the host must post.
MOST_CHUNKS = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """The shards of one pack over the ranks.

    Attributes:
        lengths: tokens of each packed document, int32 [documents], each at least 1.
        cp: CP degree, 1 to 1,024.
        document: index of each shard's document in `lengths`, int32 [shards].
        rank: the rank that holds each shard, int32 [shards], ascending.
        start: each shard's first token within its packed document, int32 [shards].
        stop: one past each shard's last token, int32 [shards].
        exchange: how KV reaches the ranks that need it.
        strategy: the rule that made the plan.
        overlap: attend in two kernel calls, every shard to its own keys while the exchange runs and
            then to what precedes it, rather than in one call after it.
        ranks_per_node: ranks r with the same r // ranks_per_node share a node. Part of the plan
            where the exchange has two levels, a divisor of `cp`; else None.
        head_chunks: in how many parts KV travels, by KV heads, one after another: while one does,
            the heads that have come attend to prefixes. Models whose KV heads it does not divide
            use the greatest common divisor (`chunks`). 1 but where needed KV travels with overlap.
        bundled: whether all that one rank sends another in a hop is packed into one message, where
            needed KV travels; else every piece is a message of its own, which copies nothing.

    Raises:
        PlanError: `ranks_per_node` is missing, not wanted, or does not divide `cp`; `head_chunks`
            is below 1, or above where it cannot be; `bundled` is set where nothing can be.
    """

    lengths: "NDArray[np.int32]"
    cp: int
    document: "NDArray[np.int32]"
    rank: "NDArray[np.int32]"
    start: "NDArray[np.int32]"
    stop: "NDArray[np.int32]"
    exchange: Exchange
    strategy: str
    overlap: bool = False
    ranks_per_node: int | None = None
    head_chunks: int = 1
    bundled: bool = False

    def __post_init__(self) -> None:
        check_nodes(self.exchange, self.cp, self.ranks_per_node)
        check_chunks(self.exchange, self.overlap, self.head_chunks)
        if self.bundled and self.exchange not in LANDING:
            raise PlanError(f"the exchange {self.exchange} has no messages to bundle")
        self._close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a plan that came from another process; its arrays stay read-only."""
        self.__dict__.update(state)
        self._close()

    def _close(self) -> None:
        for array in (self.lengths, self.document, self.rank, self.start, self.stop):
            array.flags.writeable = False

    def chunks(self, kv_heads: int) -> int:
        """Return in how many parts the KV of a model with so many KV heads travels."""
        return math.gcd(self.head_chunks, kv_heads)

    @property
    def shards(self) -> int:
        """Number of shards over all ranks."""
        return int(self.document.size)

    @cached_property
    def context_tokens(self) -> int:
        """Tokens in the pack."""
        return int(self.lengths.sum(dtype=np.int64))

    @cached_property
    def rank_splits(self) -> "NDArray[np.int64]":
        """Rank r holds the shards rank_splits[r]:rank_splits[r + 1]; int64 [cp + 1]."""
        return np.searchsorted(self.rank, np.arange(self.cp + 1)).astype(np.int64)

    @cached_property
    def rank_tokens(self) -> "NDArray[np.int64]":
        """Tokens on each rank, int64 [cp]."""
        return self._sums[0]

    @cached_property
    def rank_work(self) -> "NDArray[np.int64]":
        """Query-key pairs on each rank, int64 [cp]."""
        return self._sums[1]

    @cached_property
    def non_last_tokens(self) -> "NDArray[np.int64]":
        """Tokens of each rank in shards that are not their document's last (Eq. 5), [cp]."""
        return non_last_tokens(
            self.lengths, self.document, self.rank, self.start, self.stop, self.cp
        )

    @cached_property
    def needed_tokens(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """Tokens each rank sends and receives if it gets only what it attends to, [cp] each.

        See `flashcp.exchange.needed_tokens`.
        """
        return needed_tokens(self.document, self.rank, self.start, self.stop, self.cp)

    @cached_property
    def waiting_tokens(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        """Tokens that precede each rank's shards, and those of shards that wait, [cp] each.

        See `flashcp.exchange.waiting_tokens`.
        """
        return waiting_tokens(self.rank, self.start, self.stop, self.cp)

    @cached_property
    def held(self) -> Held:
        """What each rank holds and attends to, of which copies are counted."""
        prefix, waiting = self.waiting_tokens
        own = own_prefix_tokens(self.document, self.rank, self.start, self.stop, self.cp)
        received = self.needed_tokens[1]
        return Held(self.rank_tokens, prefix, waiting, *own, self.non_last_tokens, received)

    @property
    def two_level_tokens(self) -> "tuple[NDArray[np.int64], ...]":
        """Tokens each rank sends, receives across nodes and sends, receives inside; [cp] each.

        See `flashcp.exchange.two_level_tokens`; only of plans with that exchange.
        """
        return self._two_level_counts[:4]

    @property
    def relayed_tokens(self) -> "tuple[NDArray[np.int64], ...]":
        """Tokens that each rank passes on in two levels, and whose gradients it adds up, [cp] each.

        See `flashcp.exchange.relayed_tokens`; only of plans with that exchange.
        """
        return self._two_level_counts[4:]

    @cached_property
    def pieces(self) -> "NDArray[np.int64]":
        """Pieces of needed KV that each rank sends and receives, [cp]; of plans that send such."""
        shards = self.document, self.rank, self.start
        return needed_pieces(*shards, self.cp, self.ranks_per_node)

    @cached_property
    def _two_level_counts(self) -> "tuple[NDArray[np.int64], ...]":
        if self.ranks_per_node is None:
            raise PlanError(f"a plan with the exchange {self.exchange} has no two levels")
        return two_level_counts(
            self.document, self.rank, self.start, self.stop, self.cp, self.ranks_per_node
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, the same wherever the same plan was made."""
        more = "" if self.ranks_per_node is None else f" {self.ranks_per_node}"
        more += "" if self.head_chunks == 1 else f" chunks {self.head_chunks}"
        more += " bundled" if self.bundled else ""
        digest = hashlib.sha256(
            f"flashcp plan 1 {self.cp} {self.exchange} {self.overlap:d}{more}".encode()
        )
        for array in (self.lengths, self.document, self.rank, self.start, self.stop):
            digest.update(np.int64(array.size).astype("<i8").tobytes())
            digest.update(array.astype("<i4").tobytes())
        return digest.hexdigest()[:16]

    def validate(self) -> None:
        """Check that every token is on exactly one rank and that ranks hold equal tokens.

        Raises:
            PlanError: names the first shard, document or rank that is wrong.
        """
        check_shards(self.lengths, self.cp, self.document, self.rank, self.start, self.stop)

    @cached_property
    def _sums(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        return _sums_by_rank(self.start, self.stop, self.rank_splits)


@jit
def _sums_by_rank(
    start: "NDArray[np.int32]", stop: "NDArray[np.int32]", rank_splits: "NDArray[np.int64]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Add up tokens and query-key pairs of each rank, [cp] each."""
    tokens = np.zeros(rank_splits.size - 1, dtype=np.int64)
    pairs = np.zeros(rank_splits.size - 1, dtype=np.int64)
    for rank in range(tokens.size):
        for shard in range(rank_splits[rank], rank_splits[rank + 1]):
            size = np.int64(stop[shard]) - start[shard]
            tokens[rank] += size
            pairs[rank] += (2 * np.int64(start[shard]) + size + 1) * size // 2
    return tokens, pairs


def check_nodes(exchange: Exchange, cp: int, ranks_per_node: int | None) -> None:
    """Check that a plan knows its nodes where its exchange uses them, and only there.

    Raises:
        PlanError: names the exchange and the ranks per node.
    """
    if (exchange is Exchange.ALL_TO_ALL_TWO_LEVEL) != (ranks_per_node is not None):
        wants = "needs" if ranks_per_node is None else "takes no"
        raise PlanError(f"the exchange {exchange} {wants} ranks per node, got {ranks_per_node}")
    if ranks_per_node is not None and not (1 <= ranks_per_node <= cp and cp % ranks_per_node == 0):
        raise PlanError(f"{ranks_per_node} ranks per node do not divide a CP degree of {cp}")


def check_chunks(exchange: Exchange, overlap: bool, head_chunks: int) -> None:
    """Check that KV travels in parts only where needed KV travels beside attention.

    Raises:
        PlanError: names the number of parts.
    """
    if head_chunks < 1:
        raise PlanError(f"head chunks {head_chunks} are not at least 1")
    if head_chunks > 1 and not (overlap and exchange in LANDING):
        wants = " or ".join(sorted(LANDING))
        raise PlanError(
            f"{head_chunks} head chunks want overlap and {wants}, got {exchange}, overlap {overlap}"
        )


def check_shards(
    lengths: "NDArray[np.int32]",
    cp: int,
    document: "NDArray[np.int32]",
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
) -> None:
    """Check the shards of one pack; arguments as `Plan`'s.

    Raises:
        PlanError: names the first shard, document or rank that is wrong.
    """
    if not 1 <= cp <= MOST_RANKS:
        raise PlanError(f"CP degree {cp} is not in 1..{MOST_RANKS}")
    for name, values, most in (("document", document, lengths.size), ("rank", rank, cp)):
        bad = np.flatnonzero((values < 0) | (values >= most))
        if bad.size:
            raise PlanError(
                f"shard {bad[0]} has {name} {values[bad[0]]}, which is not in 0..{most - 1}"
            )
    bad = np.flatnonzero(np.diff(rank) < 0)
    if bad.size:
        raise PlanError(f"shard {bad[0] + 1} of rank {rank[bad[0] + 1]} is out of rank order")
    bad = np.flatnonzero((start < 0) | (stop <= start) | (stop > lengths[document]))
    if bad.size:
        i = bad[0]
        raise PlanError(
            f"shard {i} has the range [{start[i]}, {stop[i]}), which is empty or outside its "
            f"document of {lengths[document[i]]} tokens"
        )
    _check_cover(lengths, document, start, stop)
    tokens = np.bincount(rank, weights=stop - start, minlength=cp)
    if tokens.max() - tokens.min() > 1:
        raise PlanError(
            f"rank {tokens.argmax()} holds {tokens.max():.0f} tokens and rank {tokens.argmin()} "
            f"{tokens.min():.0f}; ranks must hold equal tokens, give or take one"
        )


def _check_cover(
    lengths: "NDArray[np.int32]",
    document: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
) -> None:
    """Check that each document's shards, in order of start, touch without gap or overlap."""
    order = np.lexsort((start, document))
    document, start, stop = document[order], start[order], stop[order]
    opens = np.ones(document.size, dtype=bool)
    opens[1:] = document[1:] != document[:-1]
    expected = np.zeros(document.size, dtype=np.int64)
    expected[1:] = np.where(opens[1:], 0, stop[:-1])
    bad = np.flatnonzero(start != expected)
    if bad.size:
        i = bad[0]
        raise PlanError(
            f"document {document[i]} has a shard that starts at token {start[i]} where "
            f"{expected[i]} was due: its tokens are not each on exactly one rank"
        )
    covered = np.zeros(lengths.size, dtype=np.int64)
    np.add.at(covered, document, stop - start)
    bad = np.flatnonzero(covered != lengths)
    if bad.size:
        i = bad[0]
        raise PlanError(f"document {i} has {lengths[i]} tokens, of which shards hold {covered[i]}")
