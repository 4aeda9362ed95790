"""Predicted times of a placement under each exchange, with and without overlap.

The formulas of `flashcp.prediction`, without its timeline: attention and traffic are worked out
once and shared between the ways to run the same shards. Equal to `predict` up to rounding (tested).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_kernel import attention_us
from flashcp.exchange import (
    Exchange,
    across_tokens,
    across_uniform,
    needed_tokens,
    non_last_tokens,
    two_level_tokens,
    waiting_tokens,
)
from flashcp.exchange_times import needed_exchange, two_level_exchange
from flashcp.plan_costs import merged_bytes, placed_tokens
from flashcp.strategies._shards import columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.prediction import Direction, Setting
    from flashcp.strategies._shards import Rows

    Clock = NDArray[np.float64]

_DIRECTIONS: "tuple[Direction, ...]" = ("forward", "backward")


@dataclass(frozen=True)
class Option:
    """One way to run a placement.

    Attributes:
        rows: canonical shards, int32 [shards, 4]: rank, document, start, stop.
        exchange: how KV travels.
        overlap: whether it travels beside attention.
        total_us: predicted time.
        moved_tokens: tokens that the exchange delivers to the rank that gets most.
        across_tokens: tokens that it sends from node to node, all ranks together.
        ranks_per_node: where the exchange has two levels; else None.
    """

    rows: "Rows"
    exchange: Exchange
    overlap: bool
    total_us: float
    moved_tokens: float
    across_tokens: float = 0.0
    ranks_per_node: int | None = None


@dataclass(frozen=True)
class _Way:
    """An exchange of a placement: what each rank packs, its time each way, its traffic."""

    exchange: Exchange
    packed_tokens: "Clock"
    forward_us: float
    backward_us: float
    moved_tokens: float
    across_tokens: float
    ranks_per_node: int | None = None


def options(
    rows: "Rows", lengths: "NDArray[np.int32]", cp: int, setting: "Setting"
) -> list[Option]:
    """Predict every way to run a placement.

    Args:
        rows: canonical shards, int32 [shards, 4].
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape; its copies are in place, as `auto`'s are.
    """
    rank, document, start, stop = columns(rows)
    one, two = _attention(rank, start, stop, cp, setting)
    sent, received, joined = needed_tokens(document, rank, start, stop, cp)
    non_last = non_last_tokens(lengths, document, rank, start, stop, cp)
    tokens = -(-int(lengths.sum(dtype=np.int64)) // cp)  # of the ranks that hold most
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    needed = float(max(sent.max(), received.max()))
    ways = [
        _needed(rows, cp, per_node, setting, needed, sent),
        _gathered(Exchange.ALL_GATHER_NON_LAST, int(non_last.max()), non_last, cp, setting),
        # Moves most, but from where KV lies: nothing is packed.
        _gathered(Exchange.ALL_GATHER, tokens, np.zeros(cp, dtype=np.int64), cp, setting),
    ]
    if 1 < per_node < cp:
        ways.append(_two_level(rows, cp, per_node, setting))
    kv_bytes = setting.model.kv_bytes_per_token
    copies = setting.profile.copies
    nothing = np.zeros(cp)
    prefix, waiting = waiting_tokens(rank, start, stop, cp)
    merged = copies.us_array(merged_bytes(waiting, setting.model), nothing, "in-place")
    joined_us = copies.us_array(joined.astype(np.float64) * kv_bytes, nothing, "in-place")
    factor = setting.profile.overlap_factor.value
    found = []
    for way in ways:
        packed = copies.us_array(way.packed_tokens * kv_bytes, nothing, "in-place")
        placed = placed_tokens(way.exchange, prefix, received) * kv_bytes
        placed_us = copies.us_array(placed, nothing, "in-place")
        times = (way.forward_us, way.backward_us)
        totals = (
            _together_us(one, packed, joined_us, times),
            _apart_us(two, packed, placed_us, merged, times, factor),
        )
        for overlap, total in enumerate(totals):
            found.append(
                Option(
                    rows,
                    way.exchange,
                    bool(overlap),
                    total,
                    way.moved_tokens,
                    way.across_tokens,
                    way.ranks_per_node,
                )
            )
    return found


def _needed(
    rows: "Rows",
    cp: int,
    per_node: int,
    setting: "Setting",
    largest_tokens: float,
    sent: "NDArray[np.int64]",
) -> _Way:
    together, most = 0.0, 0.0
    if per_node < cp:
        rank, document, start, stop = columns(rows)
        across = across_tokens(document, rank, start, stop, cp, per_node)
        together, most = float(across[0].sum()), float(max(across[0].max(), across[1].max()))
    us = needed_exchange(largest_tokens, most, cp, setting).us
    packed = sent.astype(np.float64)
    return _Way(Exchange.ALL_TO_ALL_NEEDED, packed, us, us, largest_tokens, together)


def _two_level(rows: "Rows", cp: int, per_node: int, setting: "Setting") -> _Way:
    rank, document, start, stop = columns(rows)
    tokens = two_level_tokens(document, rank, start, stop, cp, per_node)
    us = two_level_exchange(tokens, cp, per_node, setting).whole.us
    sent, received = tokens[0] + tokens[2], tokens[1] + tokens[3]
    return _Way(
        Exchange.ALL_TO_ALL_TWO_LEVEL,
        tokens[0].astype(np.float64),
        us,
        us,
        float(max(sent.max(), received.max())),
        float(tokens[0].sum()),
        per_node,
    )


def _gathered(
    exchange: Exchange,
    largest_tokens: int,
    packed_tokens: "NDArray[np.int64]",
    cp: int,
    setting: "Setting",
) -> _Way:
    forward_us = backward_us = 0.0
    if cp > 1 and largest_tokens > 0:
        total_bytes = float(cp * largest_tokens) * setting.model.kv_bytes_per_token
        forward_us, backward_us = (
            setting.profile.collective_us(
                name, total_bytes, cp, ranks_per_node=setting.ranks_per_node
            ).us
            for name in ("all_gather", "reduce_scatter")
        )
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    together, _ = across_uniform(exchange, largest_tokens, cp, per_node)
    packed = packed_tokens.astype(np.float64)
    moved = float((cp - 1) * largest_tokens)
    return _Way(exchange, packed, forward_us, backward_us, moved, together)


def _attention(
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
) -> "tuple[list[Clock], list[tuple[Clock, Clock]]]":
    """Return each rank's attention in each direction, in one call and in two."""
    splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
    k_lens = stop.astype(np.int64)
    q_lens = k_lens - start
    waits = start > 0
    before = np.zeros(waits.size + 1, dtype=np.int64)
    np.cumsum(waits, out=before[1:])
    waiting = before[splits]
    queries, prefixes = q_lens[waits], start[waits].astype(np.int64)
    one, two = [], []
    for direction in _DIRECTIONS:
        causal = setting.attention_parameters(direction)
        full = setting.attention_parameters(direction, causal=False)
        one.append(attention_us(q_lens, k_lens, splits, causal))
        own = attention_us(q_lens, q_lens, splits, causal)
        two.append((own, attention_us(queries, prefixes, waiting, full)))
    return one, two


def _together_us(
    attention: "list[Clock]", packed: "Clock", joined: "Clock", exchange: tuple[float, float]
) -> float:
    """Return the slowest rank's forward and backward where all attention waits."""
    arrived = packed.max() + exchange[0]
    began = float((arrived + joined + attention[0]).max())
    arrived = (began + attention[1] + joined).max() + exchange[1]
    return float(arrived + packed.max())


def _apart_us(
    attention: "list[tuple[Clock, Clock]]",
    packed: "Clock",
    placed: "Clock",
    merged: "Clock",
    exchange: tuple[float, float],
    factor: float,
) -> float:
    """Return the slowest rank's forward and backward where own keys are attended to meanwhile."""
    (own, rest), (own_back, rest_back) = attention
    arrived = packed.max() + exchange[0]
    ready = packed + _slowed(own, exchange[0], factor)
    began = float((np.maximum(ready, arrived) + placed + rest + merged).max())
    gone = began + rest_back + placed
    arrived = gone.max() + exchange[1]
    ready = gone + _slowed(own_back, exchange[1], factor) + merged
    return float((np.maximum(ready, arrived) + packed).max())


def _slowed(us: "Clock", exchange_us: float, factor: float) -> "Clock":
    """Return the time of attention beside which an exchange runs until it ends."""
    return np.where(us * factor <= exchange_us, us * factor, us + exchange_us * (1 - 1 / factor))
