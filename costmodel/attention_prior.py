"""What a fit to few points on a GPU leans on, coefficient by coefficient, and how firmly.

A dozen calls cannot tell fifteen coefficients: what they leave open stays here, and thousands of
calls override it. With figures 2 to 3 times off, 24 calls and more gave the same held-out errors to
0.2 points (docs/research/attention-model.md).
"""

from __future__ import annotations

from costmodel.attention import Coefficients

PRIOR = Coefficients(
    launch_us=10.0,
    kv_tile_us=1.6,
    query_tile_us=1.0,
    query_row_us=2.0,
    tail=0.15,
    critical_scale=0.95,
    split_us=2.5,
    split_row_us=1.8,
    throttle=0.15,
    throttle_after_us=4000.0,
    pack_penalty=0.03,
    l2_mb=26.0,
    row_spill_us_per_mb=0.06,
    cache_spill_us_per_mb=0.3,
    cache_write_us=3.6,
    empty_tile_us=0.5,
)
"""Round figures of an H100; only their order of magnitude matters where there are points enough."""

PRIOR_SPREAD = Coefficients(
    launch_us=0.7,
    kv_tile_us=1.5,
    query_tile_us=0.7,
    query_row_us=0.7,
    tail=0.7,
    critical_scale=0.15,
    split_us=0.5,
    split_row_us=0.5,
    throttle=0.7,
    throttle_after_us=0.5,
    pack_penalty=0.5,
    l2_mb=0.3,
    row_spill_us_per_mb=0.5,
    cache_spill_us_per_mb=0.7,
    cache_write_us=1.0,
    empty_tile_us=0.7,
)
"""How far a coefficient may lie from the prior: standard deviations of its logarithm."""
