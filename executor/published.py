"""All-gathers with KV laid out shard by shard around the kernel: the baseline to compare with.

Published implementations of per-seq, per-doc and FlashCP sharding spend 16 to 37% of FlashCP's own
attention time on such copies (the paper's Fig. 6). None is public for FlashCP; after the paper's
description, and as all-gather context parallelism is commonly written: what is gathered is put into
the order of the documents, shard by shard; each local shard's keys are then sliced from there and
put one behind the other for the kernel. Backward goes the same way back, with sums in float32.
Every copy is a call of its own. Nothing else differs from `executor.gathered`, so the difference
between the two is what the copies cost.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from executor.gathered import Gathered, fields_of
from executor.placement import Placement
from executor.routes import Route, route
from executor.rows import add, count, wide
from executor.waiting import Calls

# The strategies that are published with such copies, as `flashcp.prediction` counts them.
PER_SHARD = frozenset({"per-seq", "per-doc", "flashcp"})


@dataclass(frozen=True, eq=False)
class Published(Gathered):
    """`Gathered` with a copy a shard.

    Attributes:
        packs: rows of each shard that is sent: local, and in the send buffer.
        shards: rows of each shard in the buffer of what arrived, and in the documents' order.
        segments: rows of each waiting shard's keys in the documents' order.
        rows: in the documents' order.
    """

    packs: tuple[tuple[slice, slice], ...]
    shards: tuple[tuple[slice, slice], ...]
    segments: tuple[slice, ...]
    rows: int

    @classmethod
    def of(
        cls, placed: Placement, rank: int, calls: Calls, device: torch.device, *, scatters: bool
    ) -> Self:
        """Build `rank`'s part, once a plan."""
        found = route(placed, rank, calls)
        there = placed.by_document[found.base[placed.by_document] >= 0]
        ends = np.cumsum(placed.size[there])
        begins = np.full(placed.start.size, -1, dtype=np.int64)
        begins[there] = ends - placed.size[there]
        # Of a waiting shard's document lies there all from its beginning on that the shard reads.
        opening = placed.by_document[placed.document_splits[placed.document[calls.waiting]]]
        return cls(
            **fields_of(found, placed, calls, device, scatters),
            packs=_packs(placed, found),
            shards=tuple(
                (
                    _rows(found.base[shard], placed.size[shard]),
                    _rows(begins[shard], placed.size[shard]),
                )
                for shard in there
            ),
            segments=tuple(
                _rows(begin, keys)
                for begin, keys in zip(begins[opening], calls.k_lens, strict=True)
            ),
            rows=int(ends[-1]) if ends.size else 0,
        )

    def packed(self, x: Tensor) -> Tensor:
        """Return what to send [M, Hkv, D], put together shard by shard."""
        send = x.new_empty((self.padded, *x.shape[1:]))
        for source, target in self.packs:
            send[target] = x[source]
        return send

    def laid_out(self, buffer: Tensor) -> Tensor:
        """Return the waiting call's keys or values [J, Hkv, D], shard by shard."""
        documents = buffer.new_empty((self.rows, *buffer.shape[1:]))
        for source, target in self.shards:
            documents[target] = buffer[source]
        if not self.segments:
            return documents[:0]
        return torch.cat([documents[segment] for segment in self.segments])

    def spread(self, send: Tensor, own: Tensor, dkeys: Tensor) -> None:
        """Sum the waiting call's gradients by row, shard by shard."""
        shape = (self.rows, *dkeys.shape[1:])
        documents = torch.zeros(shape, dtype=wide(dkeys.dtype), device=dkeys.device)
        begin = 0
        for segment in self.segments:
            add(documents, segment, dkeys[begin : begin + count(segment)])
            begin += count(segment)
        gradients = documents.new_zeros((send.shape[0] + own.shape[0], *dkeys.shape[1:]))
        for target, source in self.shards:
            gradients[target] = documents[source]
        send.copy_(gradients[: send.shape[0]])
        own.copy_(gradients[send.shape[0] :])


def _packs(placed: Placement, found: Route) -> tuple[tuple[slice, slice], ...]:
    sizes = placed.size[found.sent_shards]
    begins = np.cumsum(sizes) - sizes
    return tuple(
        (_rows(placed.row[shard], size), _rows(begin, size))
        for shard, begin, size in zip(found.sent_shards, begins, sizes, strict=True)
    )


def _rows(first: np.int64, size: np.int64) -> slice:
    return slice(int(first), int(first + size))
