"""Packs a global batch at a time so that its packs carry equal attention work.

WLB-LLM's rule (arXiv 2503.17924): documents of outlier length wait in queues, one for each range
of lengths, until there is one for every pack of a batch; what enters a batch is sorted by length,
longest first, and each piece goes to the pack with the least work that still has room for it. What
finds no room starts the next batch.

Where WLB-LLM is silent or differs, we decided:
- Its packs may exceed the window up to what memory allows; ours never do. A batch takes in as many
  tokens as its windows hold; the window, not the batch, is what a run is sized for.
- Work is attention's, l(l + 1)/2 query-key pairs a piece. Its work counts linear layers too, which
  windows filled alike already make alike.
- Documents longer than the window are cut into full windows and a rest.
- Queues begin at the window's 16th and each covers lengths up to the square root of 2 times its
  shortest, so that the documents released together differ by at most a factor of 2 in work.
- A trace of nearly nothing but outliers has too few short documents to fill batches up. Once the
  queues hold 16 batches' tokens, a batch with a piece for every pack is closed as it is, short.
- When the trace ends, the queues are emptied into last batches, with as many packs as their tokens
  need. Packs may be shorter than the window; no document is dropped.

Measured (benchmarks/traces/RESULTS.md): at 128k and 8 packs a batch, the most loaded pack has 1.06
times the mean work of its batch on wlb-llm and 1.05 times on code; with `concat`, 3.3 and 2.7.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit
from traces.errors import TraceError
from traces.packers.pieces import PackBuilder, Packed, Pieces, PieceStream, joined, no_pieces

_HELD_BATCHES = 16  # how many batches' tokens the queues may hold


def pack_balanced(
    lengths: NDArray[np.int32],
    rows: NDArray[np.int64],
    context_tokens: int,
    limit: int,
    *,
    packs_per_batch: int,
    outlier_tokens: Sequence[int] | None,
) -> Packed:
    """Pack [documents] `lengths`, taken in the order of `rows`, into at most `limit` packs."""
    thresholds = _thresholds(outlier_tokens, context_tokens)
    stream = PieceStream(lengths, rows, context_tokens)
    builder = PackBuilder(limit)
    queues = _OutlierQueues(thresholds, packs_per_batch)
    budget = packs_per_batch * context_tokens
    waiting = no_pieces()
    while not builder.full:
        waiting = joined([waiting, queues.release(budget - waiting.tokens)])
        while waiting.tokens < budget and not stream.exhausted():
            if queues.tokens > _HELD_BATCHES * budget and waiting.lengths.size >= packs_per_batch:
                break
            fresh = stream.read(budget - waiting.tokens)
            waiting = joined([waiting, queues.admit(fresh)])
            waiting = joined([waiting, queues.release(budget - waiting.tokens)])
        if stream.exhausted() and waiting.tokens < budget:
            waiting = joined([waiting, queues.flush()])
        if not waiting.lengths.size:
            break
        packs = packs_per_batch
        if stream.exhausted():
            packs = min(packs, -(-waiting.tokens // context_tokens))
        pack_of = _place(waiting.lengths, packs, context_tokens)
        placed = pack_of >= 0
        builder.add(waiting.take(placed), pack_of[placed])
        waiting = waiting.take(~placed)
    builder.held_documents += waiting.lengths.size + len(queues)
    return builder.packed(read_all=stream.exhausted())


class _OutlierQueues:
    """First-in first-out queues, one for each range of outlier lengths."""

    def __init__(self, thresholds: NDArray[np.int64], packs_per_batch: int) -> None:
        self._thresholds = thresholds
        self._packs_per_batch = packs_per_batch
        self._queues: list[deque[tuple[int, int, int, int]]] = [deque() for _ in thresholds]
        self._arrivals = 0
        self.tokens = 0

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues)

    def admit(self, pieces: Pieces) -> Pieces:
        """Put the outliers among `pieces` into their queues and return the others."""
        level = np.searchsorted(self._thresholds, pieces.lengths, side="right")
        for index in np.flatnonzero(level):
            queue = self._queues[level[index] - 1]
            queue.append(
                (
                    self._arrivals,
                    int(pieces.lengths[index]),
                    int(pieces.rows[index]),
                    int(pieces.offsets[index]),
                )
            )
            self._arrivals += 1
            self.tokens += int(pieces.lengths[index])
        return pieces.take(level == 0)

    def release(self, budget_tokens: int) -> Pieces:
        """Return outliers, one for every pack at a time, while they fit; the longest first."""
        out: list[tuple[int, int, int, int]] = []
        for queue in reversed(self._queues):
            while len(queue) >= self._packs_per_batch:
                heads = [queue[index] for index in range(self._packs_per_batch)]
                tokens = sum(head[1] for head in heads)
                if tokens > budget_tokens:
                    break
                budget_tokens -= tokens
                self.tokens -= tokens
                out += heads
                for _ in heads:
                    queue.popleft()
        return _pieces(out)

    def flush(self) -> Pieces:
        """Empty every queue, in order of arrival."""
        out = sorted(entry for queue in self._queues for entry in queue)
        for queue in self._queues:
            queue.clear()
        self.tokens = 0
        return _pieces(out)


def _pieces(entries: list[tuple[int, int, int, int]]) -> Pieces:
    table = np.array(entries, dtype=np.int64).reshape(-1, 4)
    return Pieces(table[:, 1].astype(np.int32), table[:, 2].copy(), table[:, 3].copy())


def _thresholds(outlier_tokens: Sequence[int] | None, window: int) -> NDArray[np.int64]:
    if outlier_tokens is None:
        return np.unique([max(math.isqrt(window**2 >> k), 1) for k in range(1, 9)]).astype(np.int64)
    thresholds = np.asarray(outlier_tokens, dtype=np.int64)
    if (thresholds < 1).any() or (np.diff(thresholds) <= 0).any():
        shown = ",".join(map(str, outlier_tokens))
        raise TraceError(f"outlier_tokens {shown} must be positive and ascending, as in 8192,32768")
    return thresholds


def _place(lengths: NDArray[np.int32], packs: int, window: int) -> NDArray[np.int64]:
    """Return the pack of each piece, or -1 where none has room."""
    order = np.argsort(-lengths, kind="stable")
    pack_of = np.empty(lengths.size, dtype=np.int64)
    pack_of[order] = _place_decreasing(lengths[order], packs, window)
    return pack_of


@jit
def _place_decreasing(lengths: NDArray[np.int32], packs: int, window: int) -> NDArray[np.int64]:
    pack_of = np.full(lengths.size, -1, dtype=np.int64)
    tokens = np.zeros(packs, dtype=np.int64)
    work = np.zeros(packs, dtype=np.int64)
    for index in range(lengths.size):
        length = int(lengths[index])
        best = -1
        for pack in range(packs):
            if tokens[pack] + length <= window and (best < 0 or work[pack] < work[best]):
                best = pack
        if best >= 0:
            pack_of[index] = best
            tokens[best] += length
            work[best] += length * (length + 1) // 2
    return pack_of
