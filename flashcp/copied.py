"""What the executor copies around an exchange, in tokens of KV read once and written once.

What is sent to one rank alone goes from where it lies and lands where the kernel reads it, so
forward only what a rank's shards share is copied; backward the gradients that come back are added
to its own. An all-gather's parts lie rank by rank: every waiting shard's keys are collected from
them, and backward their gradients are added up in float32 over the whole gathered buffer before
they go home, which reads and writes the pack several times over.
"""

from typing import TYPE_CHECKING

import numpy as np

from flashcp.exchange import Exchange
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows of what `copied_tokens` returns.
PACKED, PLACED, SUMMED, RETURNED = range(4)

LANDING = frozenset({Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL})


def copied_tokens(
    exchange: Exchange,
    overlap: bool,
    waiting: "tuple[NDArray[np.int64], NDArray[np.int64]]",
    held: "NDArray[np.int64]",
    sent: "NDArray[np.int64]",
    received: "NDArray[np.int64]",
    dtype_bytes: int,
) -> "NDArray[np.float64]":
    """Count what each rank copies, [4, cp].

    Args:
        exchange: not a ring.
        overlap: whether own keys and prefixes are attended to in two calls.
        waiting: tokens that precede each rank's shards, and those of shards that wait, [cp] each.
        held: each rank's tokens, [cp].
        sent: tokens that each rank sends, once for each receiver; or gathers, [cp].
        received: needed tokens that each rank receives, [cp].
        dtype_bytes: bytes of an element.

    Returns:
        Forward, into a send buffer; beside the kernel. Backward, before gradients go home; after.
    """
    return _copied_tokens(
        exchange in LANDING,
        exchange is Exchange.ALL_GATHER_NON_LAST,
        overlap,
        *waiting,
        held,
        sent,
        received,
        4.0 / dtype_bytes,
    )


@jit
def _copied_tokens(
    lands: bool,
    packs: bool,
    overlap: bool,
    prefix: "NDArray[np.int64]",
    queries: "NDArray[np.int64]",
    held: "NDArray[np.int64]",
    sent: "NDArray[np.int64]",
    received: "NDArray[np.int64]",
    width: float,
) -> "NDArray[np.float64]":
    """Count for `copied_tokens`; `width` is a float32's bytes over an element's."""
    cp = prefix.size
    tokens = np.zeros((4, cp))
    gathered = float(sent.max() * cp)
    for rank in range(cp):
        # In one call, a rank where anything waits attends to all of its keys side by side.
        keys = float(prefix[rank])
        if not overlap and queries[rank] > 0:
            keys += held[rank]
        if lands:
            keys -= received[rank] * (keys > 0)
            tokens[PLACED, rank] = keys
            tokens[SUMMED, rank] = 1.5 * keys if overlap else keys
            tokens[RETURNED, rank] = 1.5 * sent[rank]  # two are read, one is written
        elif gathered > 0:
            tokens[PACKED, rank] = sent[rank] if packs else 0.0
            tokens[PLACED, rank] = keys
            zeroed, added = 0.5 * width, 0.5 + width
            cast = 0.5 * (1.0 + width)
            tokens[SUMMED, rank] = (zeroed + cast) * gathered + added * keys
            tokens[RETURNED, rank] = 0.5 * (gathered + sent[rank])
    return tokens
