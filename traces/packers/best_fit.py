"""Packs documents whole: best-fit decreasing, a buffer of windows' worth at a time.

Documents come in order into a buffer of `buffer_packs` windows; those longer than the window, and
only those, are cut, into full windows and a rest. The buffer is sorted by length, longest first,
and each piece goes into the fullest pack that still has room, else into a new one. The emptiest
pack's pieces go back to the head of the next buffer, so that a buffer's end costs nothing. Packs
may be shorter than the window; none is dropped.

A buffer's packs come out in hashed order, not in order of creation: the first ones created hold
the longest documents, and the first N packs should be a fair sample. Within a pack, documents keep
their order of arrival.

Measured (benchmarks/traces/RESULTS.md): at 128k, windows are 99.98% full on code and 97.9% on
books, whose documents are mostly longer than half a window.

Source: Ding et al., "Fewer truncations improve language modeling" (arXiv 2404.10830), which sorts
the whole corpus at once; the buffer keeps a run's order nearly that of the shuffle.
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit
from traces.hashing import hashes
from traces.packers.pieces import PackBuilder, Packed, PieceStream, joined, no_pieces


def pack_best_fit(
    lengths: NDArray[np.int32],
    rows: NDArray[np.int64],
    context_tokens: int,
    limit: int,
    *,
    seed: int,
    buffer_packs: int,
) -> Packed:
    """Pack [documents] `lengths`, taken in the order of `rows`, into at most `limit` packs."""
    stream = PieceStream(lengths, rows, context_tokens)
    builder = PackBuilder(limit)
    carried = no_pieces()
    buffers = 0
    while not stream.exhausted() and not builder.full:
        # At least two windows, so that a buffer yields a pack even if its emptiest is carried.
        budget = max(buffer_packs, 2) * context_tokens
        pieces = joined([carried, stream.read(budget - carried.tokens)])
        pack_of = _fit(pieces.lengths, context_tokens)
        if stream.exhausted():
            carried = no_pieces()
        else:
            emptiest = np.argmin(np.bincount(pack_of, weights=pieces.lengths))
            back = pack_of == emptiest
            carried = pieces.take(back)
            pieces = pieces.take(~back)
            pack_of = pack_of[~back]
            pack_of -= pack_of > emptiest
        rank = np.argsort(np.argsort(hashes(seed, int(pack_of.max()) + 1, stream=buffers + 1)))
        builder.add(pieces, rank[pack_of])
        buffers += 1
    builder.held_documents += carried.rows.size
    return builder.packed(read_all=stream.exhausted())


def _fit(lengths: NDArray[np.int32], window: int) -> NDArray[np.int64]:
    """Return the pack of each piece: best-fit decreasing over all of them."""
    order = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(lengths.size, dtype=np.int64)
    pack_of[order] = _fit_decreasing(lengths[order], window)
    return pack_of


@jit
def _fit_decreasing(lengths: NDArray[np.int32], window: int) -> NDArray[np.int64]:
    pack_of = np.zeros(lengths.size, dtype=np.int64)
    room = np.zeros(lengths.size, dtype=np.int64)
    # Packs with any room left, so that full ones (most, in the end) are not looked at again.
    open_packs = np.zeros(lengths.size, dtype=np.int64)
    opened = 0
    packs = 0
    for index in range(lengths.size):
        length = int(lengths[index])
        best = -1
        for slot in range(opened):
            left = room[open_packs[slot]]
            if left >= length and (best < 0 or left < room[open_packs[best]]):
                best = slot
                if left == length:
                    break
        if best < 0:
            best = opened
            open_packs[best] = packs
            room[packs] = window
            opened += 1
            packs += 1
        pack = open_packs[best]
        pack_of[index] = pack
        room[pack] -= length
        if room[pack] == 0:
            opened -= 1
            open_packs[best] = open_packs[opened]
    return pack_of
