"""Predicted times of a placement under each exchange, with and without overlap.

The formulas of `flashcp.prediction`, without its timeline: attention and traffic are worked out
once and shared between the ways to run the same shards. Equal to `predict` up to rounding (tested).
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention_kernel import BLOCKED, attention_us
from flashcp import pipeline
from flashcp.copied import LANDING, Held, copied_tokens
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
from flashcp.messages import needed_pieces, posting_us
from flashcp.plan_costs import merged_bytes, prefixes_us
from flashcp.plans import MOST_CHUNKS
from flashcp.strategies._shards import columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from flashcp.prediction import Direction, Setting
    from flashcp.strategies._shards import Rows

    Clock = NDArray[np.float64]

_DIRECTIONS: "tuple[Direction, ...]" = ("forward", "backward")
TOLERANCE = 1.005  # over the best predicted time, within which `auto` may choose otherwise
_EXPOSED = 1.004  # of the time without the exchange, from which more parts are tried


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
        head_chunks: parts by heads that KV travels in.
        bundled: whether all that one rank sends another is one message a hop and part.
    """

    rows: "Rows"
    exchange: Exchange
    overlap: bool
    total_us: float
    moved_tokens: float
    across_tokens: float = 0.0
    ranks_per_node: int | None = None
    head_chunks: int = 1
    bundled: bool = False


@dataclass(frozen=True)
class _Way:
    """An exchange of a placement: what each rank sends, its time each way, its traffic.

    `times` is of so many parts, bundled or not, both ways; `last_hop` what each rank receives in
    its last hop, where needed KV travels.
    """

    exchange: Exchange
    sent_tokens: "NDArray[np.int64]"
    times: "Callable[..., tuple[float, float]]"
    moved_tokens: float
    across_tokens: float
    ranks_per_node: int | None = None
    last_hop: "NDArray[np.int64] | None" = None


def options(
    rows: "Rows",
    lengths: "NDArray[np.int32]",
    cp: int,
    setting: "Setting",
    *,
    limit_us: float | None = None,
    gathers: bool = True,
) -> list[Option]:
    """Predict the ways to run a placement.

    Args:
        rows: canonical shards, int32 [shards, 4].
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape; its copies are in place, as `auto`'s are.
        limit_us: leave out ways that surely take longer than this, or than TOLERANCE times the best
            way found; None for every way.
        gathers: whether to predict all-gathers even where attention hides what is needed.
    """
    rank, _, start, stop = columns(rows)
    limit = np.inf if limit_us is None else limit_us
    if limit < np.inf and _attends_longer(limit, rank, start, stop, cp, setting):
        return []
    placed = _Placed(rows, lengths, cp, setting)
    if min(placed.attends_us) > limit:
        return []
    found: list[Option] = []

    def keep(option: Option) -> Option:
        nonlocal limit
        found.append(option)
        if limit_us is not None:
            limit = min(limit, TOLERANCE * option.total_us)
        return option

    def add(way: _Way, *, overlap: bool) -> Option | None:
        if placed.least_us(way, overlap) > limit:
            return None
        return keep(placed.option(way, overlap=overlap))

    hidden = False
    for way in placed.ways():
        if hidden and way.exchange not in LANDING:
            break
        option = add(way, overlap=True)
        if option is not None and way.exchange in LANDING:
            least_us = placed.without_exchange_us(way)
            chunks = 2
            # More parts where what is waited for pays for their launches.
            while (
                chunks <= MOST_CHUNKS
                and setting.model.kv_heads % chunks == 0
                and option.total_us > _EXPOSED * least_us
                and max(least_us, sum(way.times(chunks))) <= limit
            ):
                before, option = option, keep(placed.option(way, overlap=True, chunks=chunks))
                if option.total_us > before.total_us:
                    break
                chunks *= 2
            hidden |= not gathers and option.total_us <= _EXPOSED * least_us
        add(way, overlap=False)
    return found


class _Placed:
    """A placement, and what of its costs does not depend on how it is run."""

    def __init__(
        self, rows: "Rows", lengths: "NDArray[np.int32]", cp: int, setting: "Setting"
    ) -> None:
        self.rows, self.lengths, self.cp, self.setting = rows, lengths, cp, setting
        self._shards = columns(rows)
        rank, _, start, stop = self._shards
        splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
        k_lens = stop.astype(np.int64)
        q_lens = k_lens - start
        self._segments = waiting_segments(start, stop, splits)
        self._one, self._own = [], []
        for direction in _DIRECTIONS:
            causal = setting.attention_parameters(direction)
            self._one.append(attention_us(q_lens, k_lens, splits, causal))
            self._own.append(attention_us(q_lens, q_lens, splits, causal))
        self._prefixes = {1: self._parts(1)}
        self._pieces: dict[int | None, NDArray[np.int64]] = {}
        # In one call, and in two, without the exchange.
        self.attends_us = (
            float(sum(one.max() for one in self._one)),
            float(np.max(sum(self._own) + sum(self._prefixes[1]) + sum(self._merges))),
        )

    def least_us(self, way: _Way, overlap: bool) -> float:
        """Return a time that running it so is not below."""
        together, apart = self.attends_us
        # Parts of an exchange may take less than all at once where its curve is steep somewhere.
        if overlap and way.exchange in LANDING:
            return apart
        exchange_us = sum(way.times(1))
        return max(apart, exchange_us) if overlap else together + exchange_us

    def _parts(self, chunks: int) -> "list[Clock]":
        return [prefixes_us(self._segments, d, chunks, self.setting) for d in _DIRECTIONS]

    @cached_property
    def _needed(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        rank, document, start, stop = self._shards
        return needed_tokens(document, rank, start, stop, self.cp)

    @cached_property
    def _held(self) -> Held:
        rank, document, start, stop = self._shards
        cp = self.cp
        return Held(
            np.bincount(rank, stop - start, cp).astype(np.int64),
            *self._waiting,
            *own_prefix_tokens(document, rank, start, stop, cp),
            non_last_tokens(self.lengths, document, rank, start, stop, cp),
            self._needed[1],
        )

    @cached_property
    def _waiting(self) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
        rank, _, start, stop = self._shards
        return waiting_tokens(rank, start, stop, self.cp)

    @cached_property
    def _merges(self) -> "tuple[Clock, Clock]":
        merged, added = (self._us(moved) for moved in merged_bytes(self._waiting[1], self.setting))
        return merged, added

    def _us(self, moved: "Clock") -> "Clock":
        return self.setting.profile.copies.us_array(moved, np.zeros(self.cp), "in-place")

    def ways(self) -> "Iterator[_Way]":
        """Give the exchanges that there are."""
        cp, setting = self.cp, self.setting
        per_node = setting.profile.network.per_node(cp, setting.ranks_per_node)
        yield _needed(self.rows, cp, per_node, setting, self._needed)
        if 1 < per_node < cp:
            yield _two_level(self.rows, cp, per_node, setting)
        for exchange, sent in (
            (Exchange.ALL_GATHER_NON_LAST, self._held.non_last),
            (Exchange.ALL_GATHER, self._held.tokens * (cp > 1)),
        ):
            yield _gathered(exchange, sent, cp, per_node, setting)

    def option(self, way: _Way, *, overlap: bool, chunks: int = 1) -> Option:
        """Predict one way to run it, bundled where its messages would hold it up."""
        host_us = self._posting_us(way, chunks)
        total_us, bundled = self._total_us(way, way.times(chunks), overlap, chunks, host_us), False
        # Forward takes more than a quarter of a layer: else it is not the host that holds it up.
        if 4.0 * host_us > total_us:
            times = way.times(chunks, bundled=True)
            packed_us = self._total_us(way, times, overlap, chunks, last_hop=way.last_hop)
            total_us, bundled = min((total_us, False), (packed_us, True))
        return Option(
            self.rows,
            way.exchange,
            overlap,
            total_us,
            way.moved_tokens,
            way.across_tokens,
            way.ranks_per_node,
            chunks,
            bundled,
        )

    def without_exchange_us(self, way: _Way) -> float:
        """Return what would be left, with overlap, if the exchange took no time."""
        return self._total_us(way, (0.0, 0.0), overlap=True, chunks=1)

    def _posting_us(self, way: _Way, chunks: int) -> float:
        """Return what posting a way's messages takes the host that posts most, one way."""
        if way.last_hop is None:
            return 0.0
        pieces = self._pieces.get(way.ranks_per_node)
        if pieces is None:
            rank, document, start, _ = self._shards
            pieces = needed_pieces(document, rank, start, self.cp, way.ranks_per_node)
            self._pieces[way.ranks_per_node] = pieces
        message_us = self.setting.profile.message_us.value
        return float(posting_us(pieces, chunks, message_us).max())

    def _total_us(
        self,
        way: _Way,
        times: tuple[float, float],
        overlap: bool,
        chunks: int,
        host_us: float = 0.0,
        *,
        last_hop: "NDArray[np.int64] | None" = None,
    ) -> float:
        """Return both ways' time; `host_us` is the least of each, `last_hop` given if bundled."""
        tokens = copied_tokens(
            way.exchange, overlap, self._held, way.sent_tokens,
            self.setting.model.dtype_bytes, chunks, last_hop,
        )  # fmt: skip
        copied = self._us(tokens * float(self.setting.model.kv_bytes_per_token))
        if not overlap:
            packed, placed, summed, returned = copied
            arrived = packed.max() + times[0]
            began = max(float((arrived + placed + self._one[0]).max()), host_us)
            arrived = (began + self._one[1] + summed).max() + times[1]
            return max(float(arrived + returned.max()), began + host_us)
        if chunks not in self._prefixes:
            self._prefixes[chunks] = self._parts(chunks)
        (own, own_back), (rest, rest_back) = self._own, self._prefixes[chunks]
        return pipeline.total_us(
            (own, rest, own_back, rest_back), times, chunks, (copied, *self._merges),
            self.setting.profile, host_us,
        )  # fmt: skip


def _needed(
    rows: "Rows",
    cp: int,
    per_node: int,
    setting: "Setting",
    tokens: "tuple[NDArray[np.int64], NDArray[np.int64]]",
) -> _Way:
    sent, received = tokens
    largest = float(max(sent.max(), received.max()))
    together, most = 0.0, 0.0
    if per_node < cp:
        rank, document, start, stop = columns(rows)
        across = across_tokens(document, rank, start, stop, cp, per_node)
        together, most = float(across[0].sum()), float(max(across[0].max(), across[1].max()))

    @cache
    def times(chunks: int, *, bundled: bool = False) -> tuple[float, float]:  # noqa: ARG001
        us = needed_exchange(largest, most, cp, setting, chunks).us
        return us, us

    return _Way(Exchange.ALL_TO_ALL_NEEDED, sent, times, largest, together, last_hop=received)


def _two_level(rows: "Rows", cp: int, per_node: int, setting: "Setting") -> _Way:
    rank, document, start, stop = columns(rows)
    *tokens, passed, summed = two_level_counts(document, rank, start, stop, cp, per_node)
    sent, received = tokens[0] + tokens[2], tokens[1] + tokens[3]

    @cache
    def times(chunks: int, *, bundled: bool = False) -> tuple[float, float]:
        part = two_level_exchange(
            tuple(tokens), (passed, summed), cp, per_node, setting, chunks, bundled=bundled
        )
        return chunks * part.whole("forward").us, chunks * part.whole("backward").us

    return _Way(
        Exchange.ALL_TO_ALL_TWO_LEVEL,
        sent - passed,
        times,
        float(max(sent.max(), received.max())),
        float(tokens[0].sum()),
        per_node,
        tokens[3],
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
    return _Way(exchange, sent, lambda _: (forward_us, backward_us), moved, together)


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
    of tiles, the longest tile and what does not fit the cache add up to as much or more. Not so
    empty blocks, of which two calls may start fewer: they are left out. On a CPU one call merges
    what two leave to be merged, so there it says nothing.
    """
    parameters = [
        setting.attention_parameters(d, throttled=False, empty_blocks=False) for d in _DIRECTIONS
    ]
    if any(p[BLOCKED] for p in parameters):
        return False
    splits = np.searchsorted(rank, np.arange(cp + 1)).astype(np.int64)
    k_lens = stop.astype(np.int64)
    q_lens = k_lens - start
    least = sum(attention_us(q_lens, k_lens, splits, p) for p in parameters)
    return bool(np.max(least) > limit_us)
