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
from numpy.typing import ArrayLike

from flashcp.strategies import check_cp, check_lengths


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
    work = tokens * (tokens + 1) / 2
    most_work = imbalance * float(work.sum()) / cp
    most_tokens = -(-int(tokens.sum()) // cp)
    largest = 0.0
    together = 0.0
    for document in np.flatnonzero((work > most_work) | (tokens > most_tokens)):
        length, own = float(tokens[document]), float(work[document])
        ends = received = 0.0
        for holders in range(1, cp + 1):
            before = holders - 1
            # x (x + 1) / 2 = w has the root (sqrt(8 w + 1) - 1) / 2.
            rest = max(own - before * most_work, 0.0)
            end = max((np.sqrt(8 * rest + 1) - 1) / 2, length - before * most_tokens, 0.0)
            if end == 0.0:
                break
            ends += end
            largest = max(largest, (ends - min(length, holders * most_tokens)) / holders)
            received = max(received, ends - length)
        together += received
    return float(max(largest, together / cp))
