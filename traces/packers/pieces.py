"""What the packers share: the result they build, and the stream of pieces two of them read."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit


class Packed(NamedTuple):
    """A packer's result: what `traces.Packing` documents, and whether the packer read all rows."""

    splits: NDArray[np.int64]
    lengths: NDArray[np.int32]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    read_all: bool
    dropped_documents: int = 0
    dropped_tokens: int = 0
    held_documents: int = 0


class Pieces(NamedTuple):
    """Pieces in the order in which they arrived.

    Attributes:
        lengths: [pieces] int32 tokens, none above the window.
        rows: [pieces] int64 row of the document.
        offsets: [pieces] int64 tokens of the document before the piece.
    """

    lengths: NDArray[np.int32]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """The tokens of all pieces."""
        return int(self.lengths.sum(dtype=np.int64))

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Pieces":
        """Return the pieces at `index`."""
        return Pieces(self.lengths[index], self.rows[index], self.offsets[index])


def no_pieces() -> Pieces:
    """Return no pieces."""
    return Pieces(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))


def joined(parts: list[Pieces]) -> Pieces:
    """Return all pieces of all parts, in order."""
    return Pieces(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@jit
def _stop_at(lengths: NDArray[np.int32], rows: NDArray[np.int64], start: int, budget: int) -> int:
    """Return the index in `rows` by which documents from `start` hold `budget` tokens."""
    tokens = 0
    stop = start
    while stop < rows.size and tokens < budget:
        tokens += int(lengths[rows[stop]])
        stop += 1
    return stop


class PieceStream:
    """Reads a trace in order, cutting documents longer than the window into window-long pieces.

    Each such document gives full windows first and what is left over last.
    """

    def __init__(
        self, lengths: NDArray[np.int32], rows: NDArray[np.int64], context_tokens: int
    ) -> None:
        self._lengths = lengths
        self._rows = rows
        self._context_tokens = context_tokens
        self._start = 0

    def exhausted(self) -> bool:
        """Whether every document has been read."""
        return self._start >= self._rows.size

    def read(self, budget_tokens: int) -> Pieces:
        """Return the pieces of the next documents that together reach the budget."""
        stop = _stop_at(self._lengths, self._rows, self._start, budget_tokens)
        rows = self._rows[self._start : stop]
        self._start = stop
        lengths = self._lengths[rows]
        window = self._context_tokens
        if lengths.size == 0 or lengths.max() <= window:
            return Pieces(lengths, rows, np.zeros(rows.size, dtype=np.int64))
        counts = -(-lengths.astype(np.int64) // window)
        first = np.cumsum(counts) - counts
        offsets = (np.arange(counts.sum(), dtype=np.int64) - np.repeat(first, counts)) * window
        rest = np.repeat(lengths.astype(np.int64), counts) - offsets
        return Pieces(np.minimum(rest, window).astype(np.int32), np.repeat(rows, counts), offsets)


class PackBuilder:
    """Gathers packs, up to `limit` of them, and what had to wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[Pieces] = []
        self._counts: list[NDArray[np.int64]] = []
        self.packs = 0
        self.held_documents = 0

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return self.packs >= self._limit

    def add(self, pieces: Pieces, pack_of: NDArray[np.int64]) -> None:
        """Add packs 0, 1, ... of `pieces`, each in order of arrival; none may be empty.

        Args:
            pieces: what to add.
            pack_of: [pieces] the pack of each; packs above the limit are held instead.
        """
        order = np.argsort(pack_of, kind="stable")
        counts = np.bincount(pack_of).astype(np.int64)[: self._limit - self.packs]
        kept = int(counts.sum())
        self._parts.append(pieces.take(order[:kept]))
        self._counts.append(counts)
        self.packs += counts.size
        self.held_documents += pack_of.size - kept

    def packed(self, *, read_all: bool) -> Packed:
        """Return all that was added."""
        counts = np.concatenate(self._counts)
        splits = np.zeros(counts.size + 1, dtype=np.int64)
        np.cumsum(counts, out=splits[1:])
        pieces = joined(self._parts)
        return Packed(splits, *pieces, read_all, held_documents=self.held_documents)
