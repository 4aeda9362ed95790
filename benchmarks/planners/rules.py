"""Placement rules of other systems, re-implemented from what they publish.

Each takes a pack's lengths and the CP degree and returns rows (rank, document, start, stop), int32.
They place; how KV travels is up to the caller. None copies code. Where a rule needs equal counts it
takes the nearest that divide: 128k packs divide by all sizes here.
"""

import heapq

import numpy as np

from flashcp.search.loads import pairs_of
from flashcp.strategies.per_doc import zigzag_shards


def _ranges(lengths, first, last):
    """Split the pack's tokens [first, last) into (document, start, stop)."""
    ends = np.cumsum(lengths)
    document = int(np.searchsorted(ends, first, side="right"))
    while first < last:
        begin = int(ends[document]) - int(lengths[document])
        stop = min(last, int(ends[document]))
        yield document, first - begin, stop - begin
        first = stop
        document += 1


def _canonical(rows):
    """Sort by rank, document and start, and join what touches."""
    joined = []
    for row in sorted(rows):
        if joined and joined[-1][:2] == list(row[:2]) and joined[-1][3] == row[2]:
            joined[-1][3] = row[3]
        else:
            joined.append(list(row))
    return np.array(joined, dtype=np.int32)


def chunk_heap(lengths, cp, chunk):
    """MagiAttention: equal chunks, largest area first, to the least area with a free place."""
    tokens = int(lengths.sum())
    pieces = [list(_ranges(lengths, at, min(at + chunk, tokens))) for at in range(0, tokens, chunk)]
    area = [sum(pairs_of(a, b) for _, a, b in piece) for piece in pieces]
    places = -(-len(pieces) // cp)
    heap = [(0.0, rank, 0) for rank in range(cp)]
    rows = []
    for i in sorted(range(len(pieces)), key=lambda i: -area[i]):
        load, rank, count = heapq.heappop(heap)
        rows += [(rank, *piece) for piece in pieces[i]]
        if count + 1 < places:
            heapq.heappush(heap, (load + area[i], rank, count + 1))
    return _canonical(rows)


def ptrr_groups(blocks, cp):
    """PyTorch's PTRR: sort by processing time, deal forth and back; returns each rank's items."""
    order = np.argsort(-np.asarray(blocks), kind="stable").reshape(-1, cp)
    order[1::2] = order[1::2, ::-1]
    return np.sort(order.T, axis=1)


def key_blocks(lengths, block):
    """Count, for each block of queries of a packed causal mask, the key blocks that it touches."""
    tokens = int(lengths.sum())
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    firsts = begins[np.arange(0, tokens, block)]
    return np.arange(-(-tokens // block)) - firsts // block + 1


def ptrr(lengths, cp, block=128):
    """PyTorch's PTRR over blocks of the pack."""
    rows = []
    for rank, items in enumerate(ptrr_groups(key_blocks(lengths, block), cp)):
        for item in items:
            rows += [(rank, *r) for r in _ranges(lengths, item * block, (item + 1) * block)]
    return _canonical(rows)


def hybrid_ranks(length, most_tokens):
    """Megatron's hybrid CP: the power of two of ranks that a sample needs."""
    return max(1, 2 ** int(np.ceil(np.log2(length / most_tokens))))


def hybrid(lengths, cp):
    """Megatron's hybrid CP: whole samples on power-of-two groups, the group of least s^2 / ranks.

    Ranks' tokens differ; Megatron runs several such groups one after another and does not mind.
    """
    most = int(lengths.sum()) / cp
    load = np.zeros(cp)
    rows = []
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        size = min(hybrid_ranks(length, most), 2 ** int(np.log2(cp)))
        first = size * int(np.argmin([load[g : g + size].sum() for g in range(0, cp, size)]))
        load[first : first + size] += length**2 / size
        shards = zigzag_shards(np.array([length], dtype=np.int32), size)
        rows += [(first + r, document, a, b) for r, _, a, b in shards.tolist()]
    return _canonical(rows)


def block_partition(lengths, cp, block=1024, imbalance=1.02):
    """Like DCP: blocks of documents to ranks, least new KV first, under a cap on work and tokens.

    DCP partitions a hypergraph with a library; this is the greedy form of the same aim.
    """
    most_tokens = -(-int(lengths.sum()) // cp)
    most_work = imbalance * sum(pairs_of(0, int(n)) for n in lengths) / cp
    tokens, work = np.zeros(cp, dtype=np.int64), np.zeros(cp)
    rows = []
    for document in np.argsort(-lengths, kind="stable").tolist():
        start, holds = 0, np.zeros(cp, dtype=np.int64)
        while start < lengths[document]:
            stop = min(start + block, int(lengths[document]))
            added = pairs_of(start, stop)
            fits = (tokens < most_tokens) & (work + added <= most_work)
            ranks = np.flatnonzero(fits if fits.any() else tokens < most_tokens)
            rank = min(ranks.tolist(), key=lambda r: (start - holds[r], work[r] / most_work))
            stop = min(stop, start + int(most_tokens - tokens[rank]))
            rows.append((rank, document, start, stop))
            tokens[rank] += stop - start
            work[rank] += pairs_of(start, stop)
            holds[rank] = stop
            start = stop
    return _canonical(rows)
