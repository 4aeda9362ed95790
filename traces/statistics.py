"""Describes a trace: how long its documents are, and which lengths hold its tokens and its work.

Few long documents hold most of a corpus's attention work, since work grows with the square of the
length; the buckets show both shares side by side.
"""

from dataclasses import dataclass

import numpy as np

from traces.trace import Trace

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
_FIRST_EDGE = 128


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The documents of more than `above` and at most `up_to` tokens.

    Attributes:
        documents: how many.
        tokens: their tokens.
        work: their attention work in query-key pairs, l(l + 1)/2 a document left whole.
        document_share: share of the trace's documents.
        token_share: share of its tokens.
        work_share: share of its work.
    """

    above: int
    up_to: int
    documents: int
    tokens: int
    work: float
    document_share: float
    token_share: float
    work_share: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What `describe` finds.

    Attributes:
        quantiles: from a share of documents to the length that so many do not exceed.
        buckets: bounded by powers of two, from the shortest document's to the longest's.
    """

    documents: int
    tokens: int
    work: float
    shortest: int
    mean: float
    longest: int
    quantiles: dict[float, int]
    buckets: tuple[Bucket, ...]


def describe(trace: Trace) -> Statistics:
    """Describe a trace."""
    lengths = trace.lengths
    shortest, longest = int(lengths.min()), int(lengths.max())
    edges = [0, _FIRST_EDGE]
    while edges[-1] < longest:
        edges.append(edges[-1] * 2)
    documents, tokens, work = np.zeros((3, len(edges) - 1))
    # A slice at a time, so that a long trace needs no arrays of its own size.
    for start in range(0, lengths.size, 1 << 20):
        part = lengths[start : start + (1 << 20)].astype(np.float64)
        bucket = np.searchsorted(edges[1:], part, side="left")
        documents += np.bincount(bucket, minlength=documents.size)
        tokens += np.bincount(bucket, weights=part, minlength=documents.size)
        work += np.bincount(bucket, weights=part * (part + 1) / 2, minlength=documents.size)
    occupied = np.flatnonzero(documents)
    buckets = tuple(
        Bucket(
            above=edges[index],
            up_to=edges[index + 1],
            documents=int(documents[index]),
            tokens=int(tokens[index]),
            work=float(work[index]),
            document_share=float(documents[index] / documents.sum()),
            token_share=float(tokens[index] / tokens.sum()),
            work_share=float(work[index] / work.sum()),
        )
        for index in range(occupied[0], occupied[-1] + 1)
    )
    values = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    return Statistics(
        documents=trace.documents,
        tokens=trace.tokens,
        work=float(work.sum()),
        shortest=shortest,
        mean=trace.tokens / trace.documents,
        longest=longest,
        quantiles={share: int(value) for share, value in zip(QUANTILES, values, strict=True)},
        buckets=buckets,
    )
