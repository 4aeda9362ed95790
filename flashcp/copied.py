"""What the executor copies around an exchange, in tokens of KV read once and written once.

What is sent to one rank alone goes from where it lies and lands where the kernel reads it, so
forward only what a rank's shards share is copied; backward every gradient that comes back is read
once, and the own row it is added to is read and written once, whatever the number of them. Bundled,
every row is copied besides into a message and out of it, both ways. An all-gather's parts lie rank
by rank: every waiting shard's keys are collected from them, and backward their gradients are added
up row by row before they go home, which reads and writes the pack once more. So do a GPU's one-pass
kernels (`executor.fused`; counted from a run of them in tests/executor/test_copied_bytes.py).
torch's own operators, on a CPU or where Triton is missing, move up to six times as much backward;
beside attention on a CPU that is still below 1%.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flashcp.exchange import Exchange
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows of what `copied_tokens` returns.
PACKED, PLACED, SUMMED, RETURNED = range(4)

LANDING = frozenset({Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL})


@dataclass(frozen=True)
class Held:
    """What each rank holds and attends to, in tokens, [cp] each, whatever the exchange.

    Attributes:
        tokens: all of them.
        prefix: that precede its shards in their documents, once for each shard.
        waiting: in shards that something precedes.
        repeated: of `prefix`, those of its own.
        preceding: of its own that precede another own shard, once.
        non_last: in shards that are not their document's last.
        received: of others, that it needs.
    """

    tokens: "NDArray[np.int64]"
    prefix: "NDArray[np.int64]"
    waiting: "NDArray[np.int64]"
    repeated: "NDArray[np.int64]"
    preceding: "NDArray[np.int64]"
    non_last: "NDArray[np.int64]"
    received: "NDArray[np.int64]"


def copied_tokens(
    exchange: Exchange,
    overlap: bool,
    held: Held,
    sent: "NDArray[np.int64]",
    dtype_bytes: int,
    chunks: int = 1,
    bundles: "NDArray[np.int64] | None" = None,
) -> "NDArray[np.float64]":
    """Count what each rank copies, [4, cp].

    Args:
        exchange: not a ring.
        overlap: whether own keys and prefixes are attended to in two calls.
        held: what the ranks hold and need.
        sent: tokens of its own that each rank sends, once for each receiver; or gathers, [cp].
        dtype_bytes: bytes of an element.
        chunks: parts by heads that it travels in; several are packed, as a part of a row's heads is
            no neighbour of the next row's.
        bundles: where a plan is bundled, tokens that each rank receives in the last hop, [cp].

    Returns:
        Forward, into a send buffer; beside the kernel. Backward, before gradients go home; after.
    """
    return _copied_tokens(
        exchange in LANDING,
        exchange in LANDING and chunks > 1,
        bundles is not None,
        exchange is Exchange.ALL_GATHER_NON_LAST,
        overlap,
        held.tokens,
        held.prefix,
        held.waiting,
        held.repeated,
        held.preceding,
        held.non_last,
        held.received,
        sent,
        sent if bundles is None else bundles,
        4.0 / dtype_bytes,
    )


@jit
def _copied_tokens(
    lands: bool,
    parts: bool,
    bundled: bool,
    packs: bool,
    overlap: bool,
    held: "NDArray[np.int64]",
    prefix: "NDArray[np.int64]",
    waiting: "NDArray[np.int64]",
    repeated: "NDArray[np.int64]",
    preceding: "NDArray[np.int64]",
    non_last: "NDArray[np.int64]",
    received: "NDArray[np.int64]",
    sent: "NDArray[np.int64]",
    returned: "NDArray[np.int64]",
    width: float,
) -> "NDArray[np.float64]":
    """Count for `copied_tokens`; `width` is a float32's bytes over an element's."""
    cp = prefix.size
    tokens = np.zeros((4, cp))
    gathered = float(sent.max() * cp)
    for rank in range(cp):
        # In one call, a rank where anything waits attends to all of its keys side by side.
        beside = float(held[rank]) if not overlap and waiting[rank] > 0 else 0.0
        if lands:
            common = float(prefix[rank] - received[rank] - repeated[rank])
            tokens[PLACED, rank] = common + repeated[rank] + beside
            tokens[SUMMED, rank] = 1.5 * common
            if bundled:
                tokens[PACKED, rank] = sent[rank]
                tokens[PLACED, rank] += received[rank]
                tokens[SUMMED, rank] += returned[rank]
            elif parts:
                tokens[PACKED, rank] = non_last[rank]
            tokens[RETURNED, rank] = beside + 0.5 * (sent[rank] + repeated[rank]) + non_last[rank]
        elif gathered > 0:
            keys = prefix[rank] + beside
            own = 0.0
            if packs:
                own = float(preceding[rank]) if overlap else beside
                tokens[PACKED, rank] = sent[rank]
            tokens[PLACED, rank] = own + keys
            tokens[SUMMED, rank] = 0.5 * (gathered + keys + width * own)
            # What comes is added up in float32, which then meets float32 sums of own rows.
            summed = cp * sent[rank] + 2.0 * width * sent[rank] + width * own
            tokens[RETURNED, rank] = 0.5 * (summed + beside) + max(float(sent[rank]), own)
    return tokens
