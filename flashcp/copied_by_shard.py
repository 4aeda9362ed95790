"""What `executor.published` copies around an all-gather: calls, a shard each, and tokens moved.

Every rank puts what it gathered into the documents' order, one copy a shard of the pack for K and
one for V, joins the keys of its own shards from there, and goes the same way back, summing in
float32. So calls grow with the shards of all ranks: at CP 8 Per-Doc queues some 68 of them for each
document, both ways together. A call that moves less than the memory could while the host queues the
next one waits for the host. On an H200 the larger of the two, calls by the host's time and bytes by
the memory's rate, was 11 and 18% off what a rank's copies took, in the mean of two sets of runs;
the paper's cost of a shard of its own rank 84 and 79% (docs/research/copy-model.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flashcp.copied import PACKED, PLACED, RETURNED, SUMMED, copied_tokens
from flashcp.exchange import Exchange
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.plans import Plan


@dataclass(frozen=True)
class ShardCopies:
    """Copies of every rank, [4, cp] each; rows as `flashcp.copied.copied_tokens` returns them.

    Attributes:
        calls: calls to torch that copy, for K and for V.
        tokens: tokens of KV read once and written once.
    """

    calls: "NDArray[np.int64]"
    tokens: "NDArray[np.float64]"


def shard_copies(plan: "Plan", dtype_bytes: int) -> ShardCopies:
    """Count what a plan's ranks copy where KV is laid out shard by shard.

    Args:
        plan: by an all-gather, or by FlashCP's; its ranks sum what comes home by all-to-all.
        dtype_bytes: bytes of an element.
    """
    cp, rank, held = plan.cp, plan.rank, plan.held
    calls, tokens = np.zeros((4, cp), dtype=np.int64), np.zeros((4, cp))
    everything = plan.exchange is Exchange.ALL_GATHER
    sent = held.tokens if everything else held.non_last
    gathered = cp * float(sent.max())
    if cp == 1 or gathered == 0:
        return ShardCopies(calls, tokens)
    travels = everything | (plan.stop < plan.lengths[plan.document])
    waits, reads = _attended(plan.document, plan.start, plan.rank_splits, plan.overlap)
    segments = np.bincount(rank[waits], minlength=cp)
    # In one call a rank where anything waits attends to its own keys, too, side by side.
    together = held.tokens * ((segments > 0) & (not plan.overlap))
    keys = held.prefix + together
    own = np.zeros(cp) if everything else held.preceding if plan.overlap else together
    # Own shards that nobody gathers are put into the documents' order, too.
    beside = np.flatnonzero(reads & ~travels)
    size = (plan.stop - plan.start)[beside]
    rows = float(sent.sum()) + np.bincount(rank[beside], size, cp)
    shards = int(travels.sum()) + np.bincount(rank[beside], minlength=cp)
    has_own, width = own > 0, 4.0 / dtype_bytes
    calls[PACKED] = 2 * np.bincount(rank[travels], minlength=cp)
    tokens[PACKED] = sent
    calls[PLACED] = np.where(segments > 0, 2 * (has_own + shards + 1), 0)
    tokens[PLACED] = np.where(segments > 0, own + rows + keys, 0)
    # Cleared, summed, cleared, put back into the gathered order, and into the tensors' precision.
    calls[SUMMED] = 2 * (3 + segments + shards + has_own)
    tokens[SUMMED] = 0.5 * (
        width * (3 * rows + 2 * keys + 2 * gathered + 3 * own) + keys + gathered
    )
    # Rows that are not read in place are cleared; what came is summed, and added to own rows.
    calls[RETURNED] = 2 * ((together > 0).astype(np.int64) + (sent > 0) + ((sent > 0) | has_own))
    home = copied_tokens(plan.exchange, plan.overlap, held, sent, dtype_bytes)
    tokens[RETURNED] = home[RETURNED]
    return ShardCopies(calls, tokens)


@jit
def _attended(
    document: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    rank_splits: "NDArray[np.int64]",
    overlap: bool,
) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
    """Tell which shards wait for the exchange, and which are keys of a waiting one of their rank.

    In one call everything does where anything waits; in two, what precedes another own shard.
    """
    waits, reads = np.zeros(start.size, np.bool_), np.zeros(start.size, np.bool_)
    for rank in range(rank_splits.size - 1):
        mine = range(rank_splits[rank], rank_splits[rank + 1])
        any_waits = False
        for shard in mine:
            waits[shard] = start[shard] > 0
            any_waits = any_waits or start[shard] > 0
        for shard in mine:
            if not overlap:
                waits[shard] = reads[shard] = any_waits
            elif shard + 1 < rank_splits[rank + 1]:
                reads[shard] = document[shard] == document[shard + 1]
    return waits, reads
