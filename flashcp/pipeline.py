"""What a direction takes where attention to own keys and to prefixes runs beside the exchange.

Forward, KV travels in one part or in several, by KV heads, one after another. All ranks attend to
their own keys meanwhile, and then, part by part, the heads that have come to prefixes, while the
next part travels. Backward prefixes come first, part by part, and each part's dKV travels home
while the next part, and last the own keys, are attended to. So of an exchange in h parts little
more than the first (backward: the last) is waited for where own keys take less than all of it.
Everything that runs while a part travels is slowed by the profile's factor, and the exchange by
what runs beside it (`flashcp.overlap`).

All times are microseconds, of each rank [N] unless said; parts are equal.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flashcp.overlap import side_by_side, slowed

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
    own, part = attention
    packed, placed, merged = (one / chunks for one in copies)
    # The last part's heads attend when nothing travels any more.
    _, whole = side_by_side(own + (chunks - 1) * part, exchange_us, profile)
    each = float(whole) / chunks
    now = np.full(own.size, began_us)
    arrived, came = began_us, []
    for _ in range(chunks):
        now = now + packed
        arrived = max(arrived, float(now.max())) + each
        came.append(arrived)
    own = slowed(own, np.minimum(arrived - now, chunks * each), profile)
    now = now + own
    parts = np.empty((chunks, own.size))
    for chunk, there in enumerate(came):
        now = np.maximum(now, there) + placed
        parts[chunk] = slowed(part, np.maximum(arrived - now, 0.0), profile)
        now = now + parts[chunk] + merged
    return Beside(own, parts, each, now)


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
    own, part = attention
    summed, added, returned = copies
    # The first part's heads attend when nothing travels yet.
    _, whole = side_by_side(own + (chunks - 1) * part, exchange_us, profile)
    each = float(whole) / chunks
    now = np.full(own.size, began_us)
    arrived, came = began_us, []
    parts = np.empty((chunks, own.size))
    for chunk in range(chunks):
        under_way = np.clip(arrived - now, 0.0, chunk * each)
        parts[chunk] = slowed(part, under_way, profile)
        now = now + parts[chunk] + summed / chunks
        arrived = max(arrived, float(now.max())) + each
        came.append(arrived)
    own = slowed(own, np.clip(arrived - now, 0.0, chunks * each), profile)
    now = now + own + added
    for there in came:
        now = np.maximum(now, there) + returned / chunks
    return Beside(own, parts, each, now)
