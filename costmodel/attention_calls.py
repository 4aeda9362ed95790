"""Measured attention calls: what a fit takes, from a table or from one's own measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention import CPU_KERNEL, DIRECTIONS, check_heads
from costmodel.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

TABLE_COLUMNS = (
    "gpu", "kernel", "batch_size", "seq_len", "q_heads", "kv_heads", "head_dim", "fwd_us",
)  # fmt: skip


@dataclass(frozen=True)
class KernelTraits:
    """What is known of a kernel without measuring it.

    Attributes:
        tiles: rows of a query tile and keys of a key tile, by head size.
        packs_gqa: whether the query heads of a KV head share a query tile in the forward.
        splits_keys: whether few long query tiles are split along the keys.
        empty_blocks: whether backward starts a block for every key tile of the longest segment in
            every segment, so that those beyond a segment's end are to be fitted.
    """

    tiles: dict[int, tuple[int, int]]
    packs_gqa: bool
    splits_keys: bool
    empty_blocks: bool = False

    def tile(self, head_dim: int) -> tuple[int, int]:
        """Return the tile of the listed head size that is nearest."""
        return self.tiles[min(self.tiles, key=lambda known: (abs(known - head_dim), known))]


KERNELS: dict[str, KernelTraits] = {
    "flash-attn-3": KernelTraits(
        {64: (192, 128), 128: (128, 128)}, packs_gqa=True, splits_keys=True
    ),
    # The table's calls read a paged KV cache, for which FlashAttention-2 takes 64 x 128 tiles.
    "flash-attn-2": KernelTraits({128: (64, 128)}, packs_gqa=False, splits_keys=False),
    # Units that its blocks are counted in; see `attention_kernel`.
    CPU_KERNEL: KernelTraits({128: (64, 512)}, packs_gqa=False, splits_keys=False),
}

SMS = {"a100-sxm": 108, "h100-sxm": 132, "h200-sxm": 132}


@dataclass(frozen=True)
class MeasuredCall:
    """One measured kernel call.

    Attributes:
        q_lens: query tokens of each segment, at least 1.
        k_lens: key tokens of each segment, at least as many.
        q_heads: query heads.
        kv_heads: key/value heads.
        head_dim: head size.
        direction: "forward" or "backward".
        us: microseconds, positive.
        cache_write: whether the time contains an engine's KV-cache write.
    """

    q_lens: Sequence[int]
    k_lens: Sequence[int]
    q_heads: int
    kv_heads: int
    head_dim: int
    direction: str
    us: float
    cache_write: bool = False

    def __post_init__(self) -> None:
        check_heads(self.q_heads, self.kv_heads)
        if self.direction not in DIRECTIONS:
            raise ProfileError(
                f"attention direction {self.direction!r} is not one of: {', '.join(DIRECTIONS)}"
            )
        if not (np.isfinite(self.us) and self.us > 0):
            raise ProfileError(f"an attention call took {self.us} us; it must be above 0")
        if not len(self.q_lens) or len(self.q_lens) != len(self.k_lens):
            raise ProfileError(
                f"an attention call has {len(self.q_lens)} query and {len(self.k_lens)} key"
                " lengths; it needs as many of both, at least one"
            )
        for q_len, k_len in zip(self.q_lens, self.k_lens, strict=True):
            if not 1 <= q_len <= k_len:
                raise ProfileError(
                    f"an attention call has a segment of {q_len} queries and {k_len} keys;"
                    " 1 <= queries <= keys must hold"
                )

    def lengths(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return query and key lengths as arrays."""
        return np.asarray(self.q_lens, np.int64), np.asarray(self.k_lens, np.int64)


def calls_from_table(table: pd.DataFrame) -> list[MeasuredCall]:
    """Return the calls in a table with `TABLE_COLUMNS` (equal lengths, forward, cache write in).

    Raises:
        ProfileError: a column is missing, or a row is not a possible call.
    """
    missing = [name for name in TABLE_COLUMNS[2:] if name not in table.columns]
    if missing:
        raise ProfileError(f"the attention table has no column {missing[0]!r}")
    columns = [table[name].tolist() for name in TABLE_COLUMNS[2:]]
    calls = []
    for row, (batch, length, q_heads, kv_heads, head_dim, us) in enumerate(
        zip(*columns, strict=True)
    ):
        try:
            lens = [length] * batch
            calls.append(MeasuredCall(lens, lens, q_heads, kv_heads, head_dim, "forward", us, True))
        except ProfileError as error:
            raise ProfileError(f"row {row} of the attention table: {error}") from None
    return calls
