"""Remembers which attention calls were measured, so that a prediction can say how far it is off.

Calls of equal lengths without a prefix, which is what public tables hold, are kept one by one, in a
nested form that stays readable in a profile; of all calls the ranges are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.estimate import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from costmodel.checks import Fields

EqualCall = tuple[int, int, int, int]
"""q heads, kv heads, sequence length, sequences."""


@dataclass(frozen=True)
class Sampled:
    """The measured calls behind one fit.

    Attributes:
        count: measured calls.
        tokens: least and most query tokens of a segment.
        most_keys: most key tokens of a segment.
        most_segments: most segments of a call.
        most_pairs: most query-key pairs of a call, over all query heads.
        q_heads: least and most query heads.
        kv_heads: least and most key/value heads.
        prefixes: whether a call with key length above query length was measured.
        mixed: whether a call with different lengths was measured.
        equal: the calls of equal lengths without prefix.
    """

    count: int
    tokens: tuple[int, int]
    most_keys: int
    most_segments: int
    most_pairs: int
    q_heads: tuple[int, int]
    kv_heads: tuple[int, int]
    prefixes: bool
    mixed: bool
    equal: frozenset[EqualCall]

    @classmethod
    def of(cls, calls: Iterable[tuple[NDArray[np.int64], NDArray[np.int64], int, int]]) -> Sampled:
        """Return the record of at least one call (q_lens, k_lens, q_heads, kv_heads)."""
        items = list(calls)
        facts = [_facts(*call) for call in items]
        queries = np.concatenate([call[0] for call in items])
        keys = np.concatenate([call[1] for call in items])
        q_heads, kv_heads = [call[2] for call in items], [call[3] for call in items]
        return cls(
            count=len(items),
            tokens=(int(queries.min()), int(queries.max())),
            most_keys=int(keys.max()),
            most_segments=max(fact.segments for fact in facts),
            most_pairs=max(fact.pairs for fact in facts),
            q_heads=(min(q_heads), max(q_heads)),
            kv_heads=(min(kv_heads), max(kv_heads)),
            prefixes=any(fact.prefixes for fact in facts),
            mixed=any(fact.mixed for fact in facts),
            equal=frozenset(
                (call[2], call[3], int(call[0][0]), fact.segments)
                for call, fact in zip(items, facts, strict=True)
                if not fact.prefixes and not fact.mixed
            ),
        )

    def source(
        self,
        q_lens: Sequence[int] | NDArray[np.int64],
        k_lens: Sequence[int] | NDArray[np.int64],
        q_heads: int,
        kv_heads: int,
    ) -> Source:
        """Return MEASURED, INTERPOLATED or EXTRAPOLATED for a causal call."""
        queries, keys = np.asarray(q_lens, np.int64), np.asarray(k_lens, np.int64)
        used = queries > 0
        queries, keys = queries[used], keys[used]
        if not len(queries):
            return Source.MEASURED  # an empty call is not made: it takes no time for certain
        fact = _facts(queries, keys, q_heads, kv_heads)
        if fact.prefixes > self.prefixes or fact.mixed > self.mixed:
            return Source.EXTRAPOLATED
        call = (q_heads, kv_heads, int(queries[0]), fact.segments)
        if not fact.prefixes and not fact.mixed and call in self.equal:
            return Source.MEASURED
        within = (
            self.tokens[0] <= queries.min()
            and queries.max() <= self.tokens[1]
            and keys.max() <= self.most_keys
            and fact.segments <= self.most_segments
            and fact.pairs <= self.most_pairs
            and self.q_heads[0] <= q_heads <= self.q_heads[1]
            and self.kv_heads[0] <= kv_heads <= self.kv_heads[1]
        )
        return Source.INTERPOLATED if within else Source.EXTRAPOLATED

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; `equal` nests heads, then length, to the numbers of sequences."""
        equal: dict[str, dict[str, list[int]]] = {}
        for q_heads, kv_heads, length, sequences in sorted(self.equal):
            lengths = equal.setdefault(f"{q_heads}:{kv_heads}", {})
            lengths.setdefault(str(length), []).append(sequences)
        return {
            "count": self.count,
            "tokens": list(self.tokens),
            "most_keys": self.most_keys,
            "most_segments": self.most_segments,
            "most_pairs": self.most_pairs,
            "q_heads": list(self.q_heads),
            "kv_heads": list(self.kv_heads),
            "prefixes": self.prefixes,
            "mixed": self.mixed,
            "equal": equal,
        }

    @classmethod
    def from_json(cls, document: Fields) -> Sampled:
        """Return the record in `document`; raises ProfileError naming the bad field."""
        document.only(field.name for field in fields(cls))
        return cls(
            count=document.whole("count", least=1),
            tokens=_range(document, "tokens"),
            most_keys=document.whole("most_keys", least=1),
            most_segments=document.whole("most_segments", least=1),
            most_pairs=document.whole("most_pairs", least=1, most=2**63),
            q_heads=_range(document, "q_heads"),
            kv_heads=_range(document, "kv_heads"),
            prefixes=document.flag("prefixes"),
            mixed=document.flag("mixed"),
            equal=frozenset(_equal_calls(document.part("equal"))),
        )


@dataclass(frozen=True)
class _Facts:
    segments: int
    pairs: int
    prefixes: bool
    mixed: bool


def _facts(
    queries: NDArray[np.int64], keys: NDArray[np.int64], q_heads: int, _kv_heads: int
) -> _Facts:
    prefix = keys - queries
    # Python's whole numbers: a 4M-token document times 128 heads does not fit int64's pairs.
    pairs = int((queries * (2 * prefix + queries + 1) // 2).sum()) * q_heads
    return _Facts(
        segments=len(queries),
        pairs=pairs,
        prefixes=bool((prefix > 0).any()),
        mixed=bool((queries != queries[0]).any() or (keys != keys[0]).any()),
    )


def _range(document: Fields, name: str) -> tuple[int, int]:
    low_high = document.raw(name)
    if (
        not isinstance(low_high, list)
        or len(low_high) != 2
        or not all(type(x) is int and x >= 1 for x in low_high)
        or low_high[0] > low_high[1]
    ):
        raise document.fail(name, f"is {low_high!r}, not [least, most]")
    return low_high[0], low_high[1]


def _equal_calls(document: Fields) -> Iterable[EqualCall]:
    for heads in document.document:
        lengths = document.part(heads)
        for length in lengths.document:
            for sequences in lengths.numbers(length, least=1):
                try:
                    q_heads, kv_heads = (int(word) for word in heads.split(":"))
                    yield q_heads, kv_heads, int(length), int(sequences)
                except ValueError:
                    raise document.fail(
                        heads, f"holds {length!r}; heads are Q:KV and lengths whole numbers"
                    ) from None
