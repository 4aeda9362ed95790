"""Predicted times of a placement under each exchange, with and without overlap.

The formulas of `flashcp.prediction`, without its timeline: attention and traffic are worked out
once and shared between the ways to run the same shards. Equal to `predict` up to rounding (tested).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_kernel import BLOCKED, attention_us
from flashcp.copied import Held, copied_tokens
from flashcp.exchange import (
    Exchange,
    across_tokens,
    across_uniform,
    needed_tokens,
    non_last_tokens,
    own_prefix_tokens,
    two_level_counts,
    waiting_segments,
    waiting_tokens,
)
from flashcp.exchange_times import needed_exchange, two_level_exchange
from flashcp.overlap import side_by_side
from flashcp.plan_costs import merged_bytes
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
    """An exchange of a placement: what each rank sends, its time each way, its traffic."""

    exchange: Exchange
    sent_tokens: "NDArray[np.int64]"
    forward_us: float
    backward_us: float
    moved_tokens: float
    across_tokens: float
    ranks_per_node: int | None = None


def options(
    rows: "Rows",
    lengths: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
    *,
    limit_us: float = np.inf,
) -> list[Option]:
    """Predict every way to run a placement.

    Args:
        rows: canonical shards, int32 [shards, 4].
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape; its copies are in place, as `auto`'s are.
        limit_us: return nothing where the attention of one rank alone takes longer.
    """
    rank, document, start, stop = columns(rows)
    if limit_us < np.inf and _attends_longer(limit_us, rank, start, stop, cp, setting):
        return []
    one, two = _attention(rank, start, stop, cp, setting)
    apart = sum(own + rest for own, rest in two)
    if min((one[0] + one[1]).max(), np.max(apart)) > limit_us:
        return []
    sent, received = needed_tokens(document, rank, start, stop, cp)
    non_last = non_last_tokens(lengths, document, rank, start, stop, cp)
    held = np.bincount(rank, stop - start, cp).astype(np.int64)
    prefix, waiting = waiting_tokens(rank, start, stop, cp)
    own = own_prefix_tokens(document, rank, start, stop, cp)
    kept = Held(held, prefix, waiting, *own, non_last, received)
    per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
    needed = float(max(sent.max(), received.max()))
    ways = [
        _needed(rows, cp, per_node, setting, needed, sent),
        _gathered(Exchange.ALL_GATHER_NON_LAST, non_last, cp, per_node, setting),
        _gathered(Exchange.ALL_GATHER, held * (cp > 1), cp, per_node, setting),
    ]
    if 1 < per_node < cp:
        ways.append(_two_level(rows, cp, per_node, setting))
    kv_bytes = float(setting.model.kv_bytes_per_token)
    copies, nothing = setting.profile.copies, np.zeros(cp)
    dtype_bytes = setting.model.dtype_bytes
    merged_us, added_us = (
        copies.us_array(moved, nothing, "in-place") for moved in merged_bytes(waiting, setting)
    )
    found = []
    for way in ways:
        joined_us, split_us = (
            copies.us_array(
                copied_tokens(way.exchange, overlap, kept, way.sent_tokens, dtype_bytes) * kv_bytes,
                nothing,
                "in-place",
            )
            for overlap in (False, True)
        )
        times = (way.forward_us, way.backward_us)
        totals = (
            _together_us(one, joined_us, times),
            _apart_us(two, split_us, (merged_us, added_us), times, setting),
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
    return _Way(Exchange.ALL_TO_ALL_NEEDED, sent, us, us, largest_tokens, together)


def _two_level(rows: "Rows", cp: int, per_node: int, setting: "Setting") -> _Way:
    rank, document, start, stop = columns(rows)
    *tokens, passed, summed = two_level_counts(document, rank, start, stop, cp, per_node)
    levels = two_level_exchange(tuple(tokens), summed, cp, per_node, setting)
    sent, received = tokens[0] + tokens[2], tokens[1] + tokens[3]
    return _Way(
        Exchange.ALL_TO_ALL_TWO_LEVEL,
        sent - passed,
        levels.whole("forward").us,
        levels.whole("backward").us,
        float(max(sent.max(), received.max())),
        float(tokens[0].sum()),
        per_node,
    )


def _gathered(
    exchange: Exchange, sent: "NDArray[np.int64]", cp: int, per_node: int, setting: "Setting"
) -> _Way:
    forward_us = backward_us = 0.0
    largest_tokens = int(sent.max())
    if cp > 1 and largest_tokens > 0:
        total_bytes = float(cp * largest_tokens) * setting.model.kv_bytes_per_token
        forward_us, backward_us = (
            setting.profile.collective_us(
                name, total_bytes, cp, ranks_per_node=setting.ranks_per_node
            ).us
            for name in ("all_gather", "reduce_scatter")
        )
    together, _ = across_uniform(exchange, largest_tokens, cp, per_node)
    moved = float((cp - 1) * largest_tokens)
    return _Way(exchange, sent, forward_us, backward_us, moved, together)


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
    waiting = waiting_segments(start, stop, splits)
    one, two = [], []
    for direction in _DIRECTIONS:
        causal = setting.attention_parameters(direction)
        full = setting.attention_parameters(direction, causal=False)
        one.append(attention_us(q_lens, k_lens, splits, causal))
        own = attention_us(q_lens, q_lens, splits, causal)
        two.append((own, attention_us(*waiting, full)))
    return one, two


def _attends_longer(
    limit_us: float,
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
) -> bool:
    """Tell whether some rank's attention surely takes longer, from a third of the kernel calls.

    Without throttling one call takes no longer than the two that it can be split into: every count
    of tiles, the longest tile and what does not fit the cache add up to as much or more. On a CPU
    one call merges what two leave to be merged, so there it says nothing.
    """
    parameters = [setting.attention_parameters(d, throttled=False) for d in _DIRECTIONS]
    if any(p[BLOCKED] for p in parameters):
        return False
    splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
    k_lens = stop.astype(np.int64)
    q_lens = k_lens - start
    least = sum(attention_us(q_lens, k_lens, splits, p) for p in parameters)
    return bool(np.max(least) > limit_us)


def _together_us(attention: "list[Clock]", copied: "Clock", exchange: tuple[float, float]) -> float:
    """Return the slowest rank's forward and backward where all attention waits."""
    packed, placed, summed, returned = copied
    arrived = packed.max() + exchange[0]
    began = float((arrived + placed + attention[0]).max())
    arrived = (began + attention[1] + summed).max() + exchange[1]
    return float(arrived + returned.max())


def _apart_us(
    attention: "list[tuple[Clock, Clock]]",
    copied: "Clock",
    merged: "tuple[Clock, Clock]",
    exchange: tuple[float, float],
    setting: "Setting",
) -> float:
    """Return the slowest rank's forward and backward where own keys are attended to meanwhile."""
    (own, rest), (own_back, rest_back) = attention
    packed, placed, summed, returned = copied
    own, there = side_by_side(own, exchange[0], setting.profile)
    own_back, home = side_by_side(own_back, exchange[1], setting.profile)
    arrived = packed.max() + there
    ready = packed + own
    began = float((np.maximum(ready, arrived) + placed + rest + merged[0]).max())
    gone = began + rest_back + summed
    arrived = gone.max() + home
    ready = gone + own_back + merged[1]
    return float((np.maximum(ready, arrived) + returned).max())
