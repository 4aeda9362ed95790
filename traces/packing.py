"""Lays documents into context windows, by one of four rules.

`concat` and `truncate` take documents in order and fill every window; `best-fit` and `balanced`
choose, leave documents whole and may leave windows short. Which one is asked for is a name; the
rules are in `traces.packers`, a module each.

The order is the corpus's, or, with a seed, that of hashes of (seed, row): the same on every
machine and for ever (see `traces.hashing`). A corpus's own order is seldom what a run sees: the
bundled code trace, for one, holds all of Linux before the first file of LLVM.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError, quoted, suggestion
from traces.hashing import shuffled_rows
from traces.packers import PACKERS, PackBy
from traces.packers.balanced import pack_balanced
from traces.packers.best_fit import pack_best_fit
from traces.packers.concat import pack_concat
from traces.packers.pieces import Packed
from traces.packers.truncate import pack_truncate
from traces.trace import Trace
from traces.validation import MAX_LENGTH_TOKENS


@dataclass(frozen=True, eq=False)
class Packing:
    """Packs as a struct of arrays: pack i holds the pieces `splits[i]:splits[i + 1]`.

    A piece is a document or, where a packer cut one, a contiguous part of it. Within a pack, each
    piece is a document of its own under the attention mask.

    Attributes:
        context_tokens: the context window, which no pack exceeds.
        splits: [packs + 1] int64, where each pack's pieces start.
        lengths: [pieces] int32 tokens.
        rows: [pieces] int64, the row of the piece's document in the trace.
        offsets: [pieces] int64, tokens of that document before this piece.
        dropped_documents: documents the packer's rule left out altogether.
        dropped_tokens: tokens the rule left out: those documents', and those cut off others.
        held_documents: documents (or parts) taken from the trace that still waited in the
            packer's buffer or queues when `packs` was reached. Documents that it had not come to
            by then are counted nowhere.
    """

    context_tokens: int
    splits: NDArray[np.int64]
    lengths: NDArray[np.int32]
    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    dropped_documents: int = 0
    dropped_tokens: int = 0
    held_documents: int = 0

    def __len__(self) -> int:
        """Return the number of packs."""
        return int(self.splits.size - 1)

    def document_lengths(self, index: int) -> NDArray[np.int32]:
        """Return the lengths of the documents packed in pack `index`, in order.

        Raises:
            IndexError: there is no such pack.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"pack {index} of {len(self)}")
        index %= len(self)
        return self.lengths[self.splits[index] : self.splits[index + 1]]

    @property
    def tokens(self) -> int:
        """The tokens in all packs together."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def fill(self) -> float:
        """The share of the windows that holds tokens: 1.0 where every pack is full."""
        return self.tokens / (len(self) * self.context_tokens)


def pack(
    lengths: Trace | Sequence[int] | NDArray[np.integer],
    context_tokens: int,
    *,
    by: PackBy | str = "concat",
    packs: int | None = None,
    seed: int | None = 0,
    buffer_packs: int = 64,
    packs_per_batch: int = 8,
    outlier_tokens: Sequence[int] | None = None,
) -> Packing:
    """Pack documents into windows of `context_tokens`.

    Args:
        lengths: a trace, or [documents] lengths in tokens.
        context_tokens: the context window.
        by: the rule: "concat", "truncate", "best-fit" or "balanced".
        packs: stop after so many packs; the rest of the trace is not packed. A short trace gives
            fewer.
        seed: orders the documents by hashes of (seed, row); None keeps the corpus's order.
        buffer_packs: best-fit only: it sorts and fits so many windows' worth of documents at once.
        packs_per_batch: balanced only: the packs of a global batch, made equal in work.
        outlier_tokens: balanced only: the shortest length of each outlier queue, ascending; the
            default is eight, from a sixteenth of the window, each the square root of 2 times the
            one before.

    Raises:
        TraceError: an argument is out of range, or the lengths are not lengths.
    """
    trace = lengths if isinstance(lengths, Trace) else Trace("lengths", np.asarray(lengths))
    _check(by, context_tokens=context_tokens, packs=packs, buffer_packs=buffer_packs,
           packs_per_batch=packs_per_batch)  # fmt: skip
    packer = _packer(
        by,
        seed=seed or 0,
        buffer_packs=buffer_packs,
        packs_per_batch=packs_per_batch,
        outlier_tokens=outlier_tokens,
    )
    limit = trace.tokens if packs is None else int(packs)  # a pack holds at least one token
    # Few packs of a long trace need few of its documents: sort no more than those.
    first = int(min(trace.documents, _documents_for(trace, limit * context_tokens)))
    while True:
        rows = shuffled_rows(trace.documents, seed, first=first)
        packed = packer(trace.lengths, rows, context_tokens, limit)
        if not packed.read_all or rows.size == trace.documents:
            break
        first = min(trace.documents, 4 * first)
    fields = packed._asdict()
    del fields["read_all"]
    return Packing(context_tokens, **fields)


def _documents_for(trace: Trace, tokens: int) -> float:
    """Return how many documents should be enough for so many tokens, with something to spare."""
    return 1000 + 1.5 * tokens * trace.documents / trace.tokens


def _packer(
    by: str,
    *,
    seed: int,
    buffer_packs: int,
    packs_per_batch: int,
    outlier_tokens: Sequence[int] | None,
) -> Callable[[NDArray[np.int32], NDArray[np.int64], int, int], Packed]:
    if by == "concat":
        return pack_concat
    if by == "truncate":
        return pack_truncate
    if by == "best-fit":
        return partial(pack_best_fit, seed=seed, buffer_packs=buffer_packs)
    return partial(pack_balanced, packs_per_batch=packs_per_batch, outlier_tokens=outlier_tokens)


def _check(by: str, **counts: int | None) -> None:
    if by not in PACKERS:
        raise TraceError(
            f"unknown packer {by!r}{suggestion(by, PACKERS)} (there are {quoted(PACKERS)})"
        )
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TraceError(f"{name} {value!r} is not a whole number")
        if not 1 <= value <= MAX_LENGTH_TOKENS:
            raise TraceError(f"{name} {value} is not between 1 and {MAX_LENGTH_TOKENS}")
