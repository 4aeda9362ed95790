"""Packs documents in order, cutting each that crosses a window's end.

The cut document's rest starts the next pack, as a document of its own (its attention does not
reach back). No token is lost but those of the last, short pack, which is dropped and counted, as
training loops with fixed shapes do; where it is the only pack it is kept, so that a small trace
gives one.

Two passes of one loop over the documents, the first to know how many pieces there will be.
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit
from traces.packers.pieces import Packed


def pack_concat(
    lengths: NDArray[np.int32], rows: NDArray[np.int64], context_tokens: int, limit: int
) -> Packed:
    """Pack [documents] `lengths`, taken in the order of `rows`, into at most `limit` packs."""
    empty = np.zeros(0, dtype=np.int64)
    packs, pieces, left_tokens, left_documents, read = _walk(
        lengths, rows, context_tokens, limit, (empty, np.zeros(0, np.int32), empty, empty)
    )
    out = (
        np.zeros(packs + 1, dtype=np.int64),
        np.zeros(pieces, dtype=np.int32),
        np.zeros(pieces, dtype=np.int64),
        np.zeros(pieces, dtype=np.int64),
    )
    _walk(lengths, rows, context_tokens, limit, out)
    return Packed(*out, read == rows.size, left_documents, left_tokens)


@jit
def _walk(
    lengths: NDArray[np.int32],
    rows: NDArray[np.int64],
    window: int,
    limit: int,
    out: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]],
) -> tuple[int, int, int, int, int]:
    """Walk the documents, writing splits, lengths, rows and offsets where `out` has room.

    Returns:
        Packs, their pieces, the tokens and whole documents of the last, dropped pack, and the
        documents read.
    """
    splits, out_lengths, out_rows, out_offsets = out
    packs = 0
    piece = 0  # pieces of finished packs and of the one being filled
    sealed = 0  # pieces of finished packs
    read = 0
    whole = 0  # documents that begin in the pack being filled
    used = 0
    for index in range(rows.size):
        row = rows[index]
        read += 1
        length = int(lengths[row])
        offset = 0
        while offset < length and packs < limit:
            part = min(length - offset, window - used)
            if piece < out_lengths.size:
                out_lengths[piece] = part
                out_rows[piece] = row
                out_offsets[piece] = offset
            if offset == 0:
                whole += 1
            piece += 1
            offset += part
            used += part
            if used == window:
                packs += 1
                sealed = piece
                if packs < splits.size:
                    splits[packs] = sealed
                used = 0
                whole = 0
        if packs == limit:
            break
    if packs == 0:
        if splits.size > 1:
            splits[1] = piece
        return 1, piece, 0, 0, read
    return packs, sealed, used, whole, read
