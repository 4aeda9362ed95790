"""How much KV some rank must send or receive, whatever the plan, at equal tokens and balanced work.

Order the holders of a document of L tokens by where their last shard ends, e_0 >= e_1 >= ... What
lies beyond e_j is held by j ranks, so it is at most j ranks' share of tokens and j times the most
work that a rank may have: e_j >= E_j, the larger of L - j C/N and the place beyond which that much
work lies. A rank receives what is before its end and not its own; the first j + 1 own at most L
tokens together and at most C/N each. So one of them receives at least

    (E_0 + ... + E_j - min(L, (j + 1) C/N)) / (j + 1)

and the largest of these over j and over documents is a bound; so is the sum over documents of the
best numerators with L, over N. It counts no document's interplay with another, nor that what is
received must have been sent, so the least may lie above it (`flashcp.exact` tells by how much).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costmodel.attention_bound import least_end
from flashcp.strategies import check_cp, check_lengths
from groundwork.jit import jit


def least_traffic_tokens(lengths: ArrayLike, cp: int, *, imbalance: float = 1.0) -> float:
    """Return tokens that the largest rank's sent or received needed KV cannot be below.

    Args:
        lengths: tokens of each packed document, whole numbers [documents], each at least 1.
        cp: CP degree.
        imbalance: the largest rank's work over the mean, at most.

    Returns:
        Tokens; 0 where nothing is known to need cutting.

    Raises:
        PlanError: a length or the CP degree is wrong.
    """
    tokens = check_lengths(lengths).astype(np.int64)
    check_cp(cp)
    work = float((tokens * (tokens + 1) / 2).sum())
    largest, together, _ = least_received_tokens(tokens, cp, imbalance * work / cp)
    return max(largest, together / cp)


@jit
def least_received_tokens(
    lengths: NDArray[np.int64], cp: int, most_pairs: float
) -> tuple[float, float, float]:
    """Return what some rank, and what all ranks together, must receive at least, and of how much.

    Neighbours on one rank are one shard, so another rank needs all but a document's last shard.

    Args:
        lengths: tokens of each packed document.
        cp: CP degree.
        most_pairs: query-key pairs that one rank has at most.

    Returns:
        Tokens each; the third counts a token once that several ranks receive.
    """
    most_tokens = -(-lengths.sum() // cp)
    largest = together = needed = 0.0
    for tokens in lengths:
        length = float(tokens)
        if tokens <= most_tokens and 0.5 * length * (length + 1.0) <= most_pairs:
            continue
        ends = received = 0.0
        for holders in range(1, cp + 1):
            end = least_end(length, holders - 1, float(most_tokens), most_pairs)
            if end == 0.0:
                break
            ends += end
            largest = max(largest, (ends - min(length, float(holders * most_tokens))) / holders)
            received = max(received, ends - length)
        together += received
        needed += least_end(length, 1, float(most_tokens), most_pairs)
    return largest, together, needed
