"""Predicted times of a placement under each exchange, with and without overlap.

The formulas of `flashcp.prediction`, without its timeline: attention and traffic are worked out
once and shared between the ways to run the same shards. Equal to `predict` up to rounding (tested).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_kernel import attention_us
from flashcp.exchange import Exchange, needed_tokens, non_last_tokens
from flashcp.strategies._shards import columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.prediction import Direction, Setting
    from flashcp.strategies._shards import Rows

    Clock = NDArray[np.float64]

EXCHANGES = (
    Exchange.ALL_TO_ALL_NEEDED,
    Exchange.ALL_GATHER_NON_LAST,
    Exchange.ALL_GATHER,  # moves most, but from where KV lies: nothing is packed
)
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
    """

    rows: "Rows"
    exchange: Exchange
    overlap: bool
    total_us: float
    moved_tokens: float


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
    attention = _attention(rank, start, stop, cp, setting)
    sent, received, joined = needed_tokens(document, rank, start, stop, cp)
    non_last = non_last_tokens(lengths, document, rank, start, stop, cp)
    tokens = -(-int(lengths.sum(dtype=np.int64)) // cp)  # of the ranks that hold most
    kv_bytes = setting.model.kv_bytes_per_token
    copies = setting.profile.copies
    nothing = np.zeros(cp)
    placed = copies.us_array(joined.astype(np.float64) * kv_bytes, nothing, "in-place")
    found = []
    for exchange in EXCHANGES:
        if exchange is Exchange.ALL_TO_ALL_NEEDED:
            moved = float(max(sent.max(), received.max()))
            out = sent.astype(np.float64)
        elif exchange is Exchange.ALL_GATHER_NON_LAST:
            moved = float((cp - 1) * non_last.max())
            out = non_last.astype(np.float64)
        else:
            moved = float((cp - 1) * tokens)
            out = nothing
        packed = copies.us_array(out * kv_bytes, nothing, "in-place")
        times = [exchange_us(exchange, moved, cp, setting, way) for way in _DIRECTIONS]
        for overlap in (False, True):
            total = _total_us(
                attention[overlap],
                packed,
                placed,
                times,
                overlap,
                setting.profile.overlap_factor.value,
            )
            found.append(Option(rows, exchange, overlap, total, moved))
    return found


def exchange_us(
    exchange: Exchange, moved_tokens: float, cp: int, setting: "Setting", direction: "Direction"
) -> float:
    """Return the time of one exchange that delivers `moved_tokens` to the busiest rank."""
    if moved_tokens == 0:
        return 0.0
    kv_bytes = setting.model.kv_bytes_per_token
    if exchange is Exchange.ALL_TO_ALL_NEEDED:
        return setting.profile.all_to_all_v_us(
            moved_tokens * kv_bytes, cp, ranks_per_node=setting.ranks_per_node
        ).us
    return setting.profile.collective_us(
        "all_gather" if direction == "forward" else "reduce_scatter",
        cp * (moved_tokens / (cp - 1)) * kv_bytes,
        cp,
        ranks_per_node=setting.ranks_per_node,
    ).us


def _attention(
    rank: "NDArray[np.int32]",
    start: "NDArray[np.int32]",
    stop: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
) -> "tuple[list[tuple[Clock, Clock]], list[tuple[Clock, Clock]]]":
    """Return each rank's (local, rest) attention in each direction, in one call and in two."""
    splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
    k_lens = stop.astype(np.int64)
    q_lens = k_lens - start
    waits = start > 0
    before = np.zeros(waits.size + 1, dtype=np.int64)
    np.cumsum(waits, out=before[1:])
    waiting = before[splits]
    local = splits - waiting
    nothing = np.zeros(cp)
    one, two = [], []
    for direction in _DIRECTIONS:
        parameters = setting.attention_parameters(direction)
        one.append((nothing, attention_us(q_lens, k_lens, splits, parameters)))
        two.append(
            (
                attention_us(q_lens[~waits], k_lens[~waits], local, parameters),
                attention_us(q_lens[waits], k_lens[waits], waiting, parameters),
            )
        )
    return one, two


def _total_us(
    attention: "list[tuple[Clock, Clock]]",
    packed: "Clock",
    placed: "Clock",
    exchange: list[float],
    overlap: bool,
    factor: float,
) -> float:
    """Return the slowest rank's forward and backward, as `flashcp.prediction` queues them."""
    (local, rest), (local_back, rest_back) = attention
    arrived = packed.max() + exchange[0]
    ready = packed + _slowed(local, exchange[0], factor) if overlap else packed
    forward = np.maximum(ready, arrived) + placed + rest
    began = max(float(forward.max()), float(arrived))
    gone = began + rest_back + placed
    arrived = gone.max() + exchange[1]
    ready = gone + _slowed(local_back, exchange[1], factor) if overlap else gone
    backward = np.maximum(ready, arrived) + packed
    return float(max(backward.max(), arrived))


def _slowed(us: "Clock", exchange_us: float, factor: float) -> "Clock":
    """Return the time of attention beside which an exchange runs until it ends."""
    return np.where(us * factor <= exchange_us, us * factor, us + exchange_us * (1 - 1 / factor))
