"""The documents (or parts of them) that one varlen attention call attends to.

Segment i has `q_lens[i]` queries and `k_lens[i]` keys; causal masks are aligned at the end, so a
shard [start, stop) needs one segment of stop - start queries and stop keys.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from executor.rows import on_device

Pair: TypeAlias = tuple[Tensor, Tensor]
Triple: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Segments:
    """The shape of one call, on the host and on the device; made once a plan.

    Attributes:
        q_lens: queries of each segment.
        k_lens: keys of each segment.
        cu_q: where each segment's queries begin, int32 [segments + 1], on the device.
        cu_k: where its keys begin, likewise.
        max_q: most queries of a segment.
        max_k: most keys.
        causal: whether queries see only keys up to their own position, aligned at the end.
    """

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    cu_q: Tensor
    cu_k: Tensor
    max_q: int
    max_k: int
    causal: bool

    @classmethod
    def of(
        cls,
        q_lens: NDArray[np.int64] | list[int],
        k_lens: NDArray[np.int64] | list[int],
        device: torch.device,
        *,
        causal: bool = True,
    ) -> "Segments | None":
        """Return the segments of these lengths on `device`; None where there is none."""
        if len(q_lens) == 0:
            return None
        cu_q, cu_k = (
            on_device(np.concatenate([[0], np.cumsum(lens)]).astype(np.int32), device)
            for lens in (q_lens, k_lens)
        )
        q, k = tuple(map(int, q_lens)), tuple(map(int, k_lens))
        return cls(q, k, cu_q, cu_k, max(q), max(k), causal)


def written(found: Tensor, wanted: Tensor | None) -> Tensor:
    """Return what a kernel found where it is wanted; copies unless it was written there."""
    if wanted is None:
        return found
    if found.data_ptr() != wanted.data_ptr():
        wanted.copy_(found)
    return wanted


def written_all(found: Triple, wanted: Triple | None) -> Triple:
    """Return three results where they are wanted; see `written`."""
    if wanted is None:
        return found
    for one, where in zip(found, wanted, strict=True):
        written(one, where)
    return wanted
