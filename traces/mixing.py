"""Mixes traces by weight: a weight is a trace's share of the mixture's tokens.

From each trace, documents are taken in the order of their hashes of (seed, row) until its share of
the tokens is reached, to within half a document. Without a size, the mixture is the largest that
repeats no document: the trace that is smallest for its weight is taken whole. With one, a trace
that has too few tokens is taken several times over, each time in another order. The documents taken
are then put in hashed order themselves, so that every stretch of the mixture is mixed alike.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from traces.errors import TraceError, shortened
from traces.hashing import shuffled_rows
from traces.trace import Trace

_LEAST_SHARE = 1e-15  # below it a share is lost in the rounding of the others

_COMPONENT = re.compile(
    r"""(?P<source>[^,:=]+
        (?: : (?:[A-Za-z_]+=[^,=]+ | [0-9][^,=]*) (?: ,[A-Za-z_]+=[^,=]+ )* )? )
        = (?P<weight>[^,=]*) (?:,|$)""",
    re.VERBOSE,
)

# What Python's float reads, but for digits in groups ("1_000") or of other scripts.
_WEIGHT = re.compile(
    r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE | re.ASCII
)


def mix(
    traces: Sequence[Trace], weights: Sequence[float], *, tokens: int | None = None, seed: int = 0
) -> Trace:
    """Mix traces.

    Args:
        traces: what to mix.
        weights: a positive number each; a trace's share of tokens is its weight over their sum.
        tokens: the mixture's tokens; None gives the most without repeating a document.
        seed: chooses and orders the documents.

    Raises:
        TraceError: a weight is not positive, or nothing beside the others, or there are not as many
            as traces.
    """
    if len(traces) != len(weights) or not traces:
        raise TraceError(f"{len(traces)} traces and {len(weights)} weights; give each trace one")
    for trace, weight in zip(traces, weights, strict=True):
        if not 0 < weight < float("inf"):
            raise TraceError(
                f"weight {weight} of {shortened(trace.name)} is not a positive number; give its "
                "share of the tokens, such as 0.7"
            )
    shares = _shares(traces, weights)
    if tokens is not None and tokens < 1:
        raise TraceError(f"tokens {tokens} of a mixture is not positive")
    total = tokens or min(trace.tokens / share for trace, share in zip(traces, shares, strict=True))
    taken = [
        _take(trace, share * total, seed=seed, stream=3 + index)
        for index, (trace, share) in enumerate(zip(traces, shares, strict=True))
    ]
    lengths = np.concatenate(taken)
    lengths = lengths[shuffled_rows(lengths.size, seed, stream=2)]
    lengths.flags.writeable = False
    name = ",".join(
        f"{trace.name}={weight:g}" for trace, weight in zip(traces, weights, strict=True)
    )
    notes = sorted({trace.note for trace in traces if trace.note})
    return Trace(name, lengths, "; ".join(notes))


def _shares(traces: Sequence[Trace], weights: Sequence[float]) -> list[float]:
    """Return each positive weight over their sum."""
    largest = max(weights)
    if not math.isfinite(sum(weights)):
        weights = [weight / largest for weight in weights]
    shares = [weight / sum(weights) for weight in weights]
    for trace, weight, share in zip(traces, weights, shares, strict=True):
        if share < _LEAST_SHARE:
            raise TraceError(
                f"weight {weight:g} of {shortened(trace.name)} is nothing beside {largest:g}; "
                "leave it out or give shares of the tokens, such as 0.7 and 0.3"
            )
    return shares


def _take(trace: Trace, tokens: float, *, seed: int, stream: int) -> NDArray[np.int32]:
    """Return the lengths of documents that together come nearest to `tokens`, at least one."""
    whole, rest = divmod(tokens, trace.tokens)
    parts = [np.tile(trace.lengths, int(whole))]
    ordered = trace.lengths[shuffled_rows(trace.documents, seed, stream=stream)]
    ends = np.cumsum(ordered, dtype=np.int64)
    # A document whose middle lies before the mark is in.
    count = int(np.searchsorted(ends - ordered / 2, rest))
    parts.append(ordered[: max(count, int(whole == 0))])
    return np.concatenate(parts)


def parse_mixture(spec: str) -> list[tuple[str, float]]:
    """Read `source=weight,source=weight`; a generator's parameters may stand inside a source.

    Returns:
        (source, weight) pairs, or nothing if `spec` is not written like a mixture.

    Raises:
        TraceError: it is, but a weight is not a number.
    """
    pairs: list[tuple[str, float]] = []
    at = 0
    while at < len(spec):
        match = _COMPONENT.match(spec, at)
        if match is None:
            return []
        pairs.append((match["source"], _weight(spec, match["source"], match["weight"])))
        at = match.end()
    return pairs


def _weight(spec: str, source: str, written: str) -> float:
    if not _WEIGHT.fullmatch(written):
        raise TraceError(
            f"{shortened(spec)}: the weight {shortened(written)!r} of {shortened(source)} is not a "
            "number such as 0.7"
        )
    return float(written)
