"""Derives the backward direction, which the shipped tables do not hold, from reported figures.

The backward kernel owns key tiles and walks query tiles, once for each query head (it does not pack
GQA heads), so a short shard behind a long prefix, which has many key tiles of few query tiles each,
costs it relatively more than it costs the forward. Coefficients, each from a forward fit:

- `kv_tile_us`: 2.8 times the forward's. The FlashCP paper's breakdown (arXiv 2606.08476, 8 H100s,
  head size 128) has backward / forward = 2.89, 2.85 and 2.82 on its WLB-LLM packs, which are
  mostly long documents; 2.8 is what remains for tiles once the other terms are taken off. By FLOPs
  the ratio is 2.5.
- `query_tile_us` (here: of a key tile): 1.3 backward tile times. With it, packs of code files,
  whose Per-Doc / Per-Seq forward ratio is that of the paper's Pile packs (0.60), have the ratio
  3.23 of the paper's Per-Doc row on the Pile. It also agrees with the reported FlashAttention-2
  forward + backward on H100 (163, 221, 265, 294, 308, 328 TFLOP/s at 512..16384): a line through
  those times has 1.7 tile times of overhead a query tile; ours is 1.63, both directions together.
- `launch_us`: 2 times the forward's, an assumption: three kernels instead of about one and a half.
- Terms of rows, of the L2 cache and of the KV cache: none. Tail, longest tile and throttle: as in
  the forward.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from costmodel.estimate import Source

if TYPE_CHECKING:
    from costmodel.attention import AttentionFit, AttentionModel

TILE_RATIO = 2.8
OVERHEAD_TILES = 1.3
LAUNCH_RATIO = 2.0


def with_reported_backward(model: AttentionModel) -> AttentionModel:
    """Return the model with a REPORTED backward for each forward head size that has none fitted."""
    fitted = {fit.head_dim for fit in model.fits if fit.direction == "backward"}
    added = tuple(
        reported_backward(fit, packs_gqa=model.packs_gqa)
        for fit in model.fits
        if fit.direction == "forward" and fit.head_dim not in fitted
    )
    return replace(model, fits=model.fits + added)


def reported_backward(forward: AttentionFit, *, packs_gqa: bool) -> AttentionFit:
    """Return the backward fit that reported figures give for a forward fit."""
    c = forward.coefficients
    # The reported ratios are those of plain multi-head attention, which pays the pack penalty.
    tile_us = TILE_RATIO * c.kv_tile_us * (1 + (c.pack_penalty if packs_gqa else 0.0))
    return replace(
        forward,
        direction="backward",
        source=Source.REPORTED,
        sampled=None,
        coefficients=replace(
            c,
            launch_us=LAUNCH_RATIO * c.launch_us,
            kv_tile_us=tile_us,
            query_tile_us=OVERHEAD_TILES * tile_us,
            query_row_us=0.0,
            split_us=0.0,
            split_row_us=0.0,
            pack_penalty=0.0,
            row_spill_us_per_mb=0.0,
            cache_spill_us_per_mb=0.0,
            cache_write_us=0.0,
        ),
    )
