"""What a fit to few points on a CPU leans on: round figures of one core of a server of 2023.

Terms that a CPU does not have (waiting for the longest tile, a clock that drops, a cache that
spills) are set to next to nothing; a fit, which moves logarithms, leaves them there.
"""

from __future__ import annotations

from costmodel.attention import (
    COEFFICIENTS,
    CPU_KERNEL,
    AttentionFit,
    AttentionModel,
    Coefficients,
    Direction,
)
from costmodel.attention_calls import KERNELS
from costmodel.estimate import Source

_NOTHING = 1e-6
_HEAD_DIM = 128


def cpu_prior(threads: int) -> AttentionModel:
    """Return the model of torch's attention on a CPU before anything was measured."""
    return AttentionModel(
        CPU_KERNEL,
        threads,
        packs_gqa=False,
        splits_keys=False,
        fits=(
            _fit("forward", kv_tile_us=200.0, query_tile_us=15.0),
            _fit("backward", kv_tile_us=400.0, query_tile_us=120.0),
        ),
    )


def _fit(direction: Direction, *, kv_tile_us: float, query_tile_us: float) -> AttentionFit:
    values = dict.fromkeys(COEFFICIENTS, _NOTHING) | {
        "launch_us": 50.0,
        "kv_tile_us": kv_tile_us,
        "query_tile_us": query_tile_us,
        "query_row_us": 5.0,
        "critical_scale": 1.0,
        "throttle_after_us": 1e9,
        "l2_mb": 1e6,
        "empty_tile_us": 0.0,
    }
    tile_q, tile_k = KERNELS[CPU_KERNEL].tile(_HEAD_DIM)
    return AttentionFit(
        direction, _HEAD_DIM, tile_q, tile_k, Coefficients(**values), Source.REPORTED, None
    )
