"""Random packs and plans that no strategy would make, for tests of what executes them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from flashcp.copied import LANDING
from flashcp.exchange import Exchange
from flashcp.plans import Plan
from flashcp.strategies import STRATEGIES, shard


def random_lengths(rng, *, most_documents=8, most_tokens=60):
    """Document lengths from one token up; now and then one document, or fewer tokens than ranks."""
    most = int(rng.choice([2, 12, most_tokens]))
    return rng.integers(1, most + 1, rng.integers(1, most_documents + 1)).astype(np.int32)


def scattered_plan(rng, lengths, cp, exchange, *, overlap):
    """Documents cut anywhere, the pieces on any ranks, equal tokens on each.

    Where KV may travel in several parts, it does in one, two or four, and bundled or not.
    """
    tokens = int(lengths.sum())
    room = np.full(cp, tokens // cp) + (np.arange(cp) < tokens % cp)
    pieces = []
    for document, length in enumerate(lengths):
        cuts = {0, int(length), *rng.integers(0, length + 1, rng.integers(0, 4)).tolist()}
        ends = sorted(cuts)
        pieces += [(document, a, b) for a, b in pairwise(ends)]
    rows = []
    for index in rng.permutation(len(pieces)):
        document, start, stop = pieces[index]
        while start < stop:
            rank = rng.choice(np.flatnonzero(room))
            size = min(stop - start, int(room[rank]))
            rows.append((int(rank), document, start, start + size))
            room[rank] -= size
            start += size
    joined = []
    for row in sorted(rows):
        last = joined[-1] if joined else None
        if last and last[:2] == row[:2] and last[3] == row[2]:
            joined[-1] = (*last[:3], row[3])
        else:
            joined.append(row)
    rank, document, start, stop = (np.array(c, dtype=np.int32) for c in zip(*joined, strict=True))
    divisors = [n for n in range(1, cp + 1) if cp % n == 0]
    two_level = exchange is Exchange.ALL_TO_ALL_TWO_LEVEL
    return Plan(
        lengths=lengths,
        cp=cp,
        document=document,
        rank=rank,
        start=start,
        stop=stop,
        exchange=exchange,
        strategy="scattered",
        overlap=overlap,
        ranks_per_node=int(rng.choice(divisors)) if two_level else None,
        head_chunks=int(rng.choice([1, 2, 4])) if overlap and exchange in LANDING else 1,
        bundled=exchange in LANDING and bool(rng.integers(2)),
    )


def all_plans(rng, lengths, cp):
    """The five fixed strategies, and plans of the kinds that a search may choose."""
    plans = [shard(lengths, cp, name) for name in STRATEGIES]
    flashcp = plans[-1]
    plans.append(replace(flashcp, exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True))
    exchange = list(Exchange)[int(rng.integers(len(Exchange)))]
    plans.append(scattered_plan(rng, lengths, cp, exchange, overlap=bool(rng.integers(2))))
    plans += [
        scattered_plan(rng, lengths, cp, exchange, overlap=bool(rng.integers(2)))
        for exchange in (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL)
    ]
    return plans
