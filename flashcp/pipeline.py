"""What a direction takes where attention to own keys and to prefixes runs beside the exchange.

Forward, KV travels in one part or in several, by KV heads, one after another. All ranks attend to
their own keys meanwhile, and then, part by part, the heads that have come to prefixes, while the
next part travels. Backward prefixes come first, part by part, and each part's dKV travels home
while the next part, and last the own keys, are attended to. So of an exchange in h parts little
more than the first (backward: the last) is waited for where own keys take less than all of it.
Everything that runs while a part travels is slowed by the profile's factor, and the exchange by
what runs beside it (`flashcp.overlap`). On two nodes of 8 H100s `auto`'s plans are predicted to
take 0.76 to 0.94 of the time without parts (docs/research/auto.md).

All times are microseconds, of each rank [N] unless said; parts are equal.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flashcp.overlap import prolonged, slowed
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from costmodel.profile import Profile

    Clock = NDArray[np.float64]


@dataclass(frozen=True)
class Beside:
    """What the pieces take beside one another.

    Attributes:
        own: attention to own keys, [N].
        parts: attention to prefixes, of each part of the heads, [parts, N].
        exchange_us: each part of the exchange.
        ends: when each rank has ended, [N].
    """

    own: "Clock"
    parts: "Clock"
    exchange_us: float
    ends: "Clock"

    @property
    def attention(self) -> "Clock":
        """All of a rank's attention, [N]."""
        total: Clock = self.own + self.parts.sum(axis=0)
        return total


def forward(
    attention: "tuple[Clock, Clock]",
    exchange_us: float,
    chunks: int,
    copies: "tuple[Clock, Clock, Clock]",
    profile: "Profile",
    began_us: float = 0.0,
) -> Beside:
    """Run a forward pass.

    Args:
        attention: to own keys, and to prefixes by one part of the heads; alone.
        exchange_us: the whole exchange alone.
        chunks: parts that it travels in.
        copies: packed before, placed after and merged after a part's attention; of all parts.
        profile: whose factors count.
        began_us: when all ranks begin.
    """
    factors = profile.overlap_factor.value, profile.exchange_overlap_factor.value
    return Beside(*_forward(*attention, exchange_us, chunks, *copies, *factors, began_us))


def backward(
    attention: "tuple[Clock, Clock]",
    exchange_us: float,
    chunks: int,
    copies: "tuple[Clock, Clock, Clock]",
    profile: "Profile",
    began_us: float = 0.0,
) -> Beside:
    """Run a backward pass; arguments as of `forward`, but for the copies.

    Those are summed before a part goes home, added to dQ after all attention, and added to what is
    there when a part has come home.
    """
    factors = profile.overlap_factor.value, profile.exchange_overlap_factor.value
    return Beside(*_backward(*attention, exchange_us, chunks, *copies, *factors, began_us))


def total_us(
    attention: "tuple[Clock, Clock, Clock, Clock]",
    exchange_us: tuple[float, float],
    chunks: int,
    copies: "tuple[Clock, Clock, Clock]",
    profile: "Profile",
    least_us: float = 0.0,
) -> float:
    """Return when the slowest rank has ended `forward` and then `backward`, in one compiled call.

    Args:
        attention: to own keys and to prefixes forward, and both backward; as of `forward`.
        exchange_us: the whole exchange alone, each way.
        chunks: parts that it travels in.
        copies: packed, placed, summed and returned, [4, N]; merged; added.
        profile: whose factors count.
        least_us: that each way takes, whatever the device does.
    """
    factors = profile.overlap_factor.value, profile.exchange_overlap_factor.value
    found: float = _total_us(*attention, *exchange_us, chunks, *copies, *factors, least_us)
    return found


_slowed, _prolonged = jit(slowed), jit(prolonged)


@jit
def _each_us(
    own: "Clock", part: "Clock", exchange_us: float, chunks: int, factor: float, other: float
) -> float:
    """Return what a part of the exchange takes, slowed by all attention but one part's.

    Of one part the heads attend when nothing travels: forward the last, backward the first.
    """
    longest = 0.0
    for rank in range(own.size):
        longest = max(longest, (own[rank] + (chunks - 1) * part[rank]) * factor)
    return float(_prolonged(exchange_us, longest, other) / chunks)


@jit
def _forward(
    own: "Clock", part: "Clock", exchange_us: float, chunks: int,
    packed: "Clock", placed: "Clock", merged: "Clock",
    factor: float, other: float, began: float,
) -> "tuple[Clock, Clock, float, Clock]":  # fmt: skip
    ranks = own.size
    each = _each_us(own, part, exchange_us, chunks, factor, other)
    came = np.empty(chunks)
    arrived = began
    for chunk in range(chunks):
        arrived = max(arrived, began + packed.max() * (chunk + 1) / chunks) + each
        came[chunk] = arrived
    own_beside, ends = np.empty(ranks), np.empty(ranks)
    parts = np.empty((chunks, ranks))
    for rank in range(ranks):
        now = began + packed[rank]
        own_beside[rank] = _slowed(own[rank], min(arrived - now, chunks * each), factor)
        now += own_beside[rank]
        for chunk in range(chunks):
            now = max(now, came[chunk]) + placed[rank] / chunks
            parts[chunk, rank] = _slowed(part[rank], max(arrived - now, 0.0), factor)
            now += parts[chunk, rank] + merged[rank] / chunks
        ends[rank] = now
    return own_beside, parts, each, ends


@jit
def _backward(
    own: "Clock", part: "Clock", exchange_us: float, chunks: int,
    summed: "Clock", added: "Clock", returned: "Clock",
    factor: float, other: float, began: float,
) -> "tuple[Clock, Clock, float, Clock]":  # fmt: skip
    ranks = own.size
    each = _each_us(own, part, exchange_us, chunks, factor, other)
    came = np.empty(chunks)
    own_beside, ends = np.empty(ranks), np.full(ranks, began)
    parts = np.empty((chunks, ranks))
    arrived = began
    for chunk in range(chunks):
        for rank in range(ranks):
            under_way = min(max(arrived - ends[rank], 0.0), chunk * each)
            parts[chunk, rank] = _slowed(part[rank], under_way, factor)
            ends[rank] += parts[chunk, rank] + summed[rank] / chunks
        arrived = max(arrived, ends.max()) + each
        came[chunk] = arrived
    for rank in range(ranks):
        under_way = min(max(arrived - ends[rank], 0.0), chunks * each)
        own_beside[rank] = _slowed(own[rank], under_way, factor)
        now = ends[rank] + own_beside[rank] + added[rank]
        for there in came:
            now = max(now, there) + returned[rank] / chunks
        ends[rank] = now
    return own_beside, parts, each, ends


@jit
def _total_us(
    own: "Clock", part: "Clock", own_back: "Clock", part_back: "Clock",
    exchange_us: float, exchange_back_us: float, chunks: int,
    copied: "Clock", merged: "Clock", added: "Clock", factor: float, other: float, least: float,
) -> float:  # fmt: skip
    packed, placed, summed, returned = copied[0], copied[1], copied[2], copied[3]
    forth = _forward(
        own, part, exchange_us, chunks, packed, placed, merged, factor, other, 0.0
    )[3]  # fmt: skip
    there = max(forth.max(), least)
    back = _backward(
        own_back, part_back, exchange_back_us, chunks, summed, added, returned, factor, other,
        there,
    )[3]  # fmt: skip
    return float(max(back.max(), there + least))
