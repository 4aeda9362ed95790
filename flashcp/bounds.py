"""A lower bound on what any plan of a pack can take.

Whatever the placement, the ranks share the pack's tiles and tokens and, where a document is longer
than a rank's share C, its cuts; the slowest rank takes at least the mean. Three things are added:

- Attention: the tiles that undivided documents walk, and the ends of long documents that N ranks of
  at most C tokens cannot but hold (`costmodel.attention_kernel.lower_bound_us`).
- What cuts cost: of a document of L tokens at least L - C wait for keys that travel, and some rank
  receives at least what `flashcp.traffic_bound` says at any balance. Either attention waits for all
  of it; or it runs beside it, each slows the other, query tiles of what waits are visited twice and
  its outputs and dQ are merged. Either way the gradients of at least L - C tokens come home once
  and are added to what is there.
- Rings share query tiles between shards and pass on all KV, so they have a bound of their own.

It knows no balance, no rounding to tokens and no wait of ranks for each other.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from costmodel import attention_kernel as kernel
from costmodel.attention import DIRECTIONS
from flashcp.exchange_times import ring_transfers_us
from flashcp.plan_costs import merged_bytes
from flashcp.traffic_bound import least_traffic_tokens

if TYPE_CHECKING:
    from flashcp.prediction import Setting

_CALLS_A_RANK = 2  # what is local and what waits for the exchange


def lower_bound_us(lengths: NDArray[np.int32], cp: int, setting: "Setting") -> float:
    """Return a time that no plan's prediction is below: forward + backward of one attention layer.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape.

    Returns:
        Microseconds.
    """
    pack = _Pack(lengths, cp, setting)
    return min(pack.joined_us(), pack.ring_us())


def attention_bound_us(lengths: NDArray[np.int32], cp: int, setting: "Setting") -> float:
    """Return the part of the bound that is attention, as if no document had to be cut.

    Rings, which may fill tiles better, can be below it; none was seen to be.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: CP degree.
        setting: hardware and model shape.

    Returns:
        Microseconds.
    """
    return _Pack(lengths, cp, setting).attention_us(tiles_shared=False)


class _Pack:
    """What every plan of one pack must do."""

    def __init__(self, lengths: NDArray[np.int32], cp: int, setting: "Setting") -> None:
        self.tokens = np.asarray(lengths, dtype=np.int64)
        self.cp, self.setting = cp, setting
        self.share = -(-int(self.tokens.sum()) // cp)
        self.waiting = int(np.maximum(self.tokens - self.share, 0).sum())
        # Share of an exchange that attention beside it loses, whether it or the exchange is longer.
        self.lost = 1 - 1 / setting.profile.overlap_factor.value

    def joined_us(self) -> float:
        """Return the bound of plans that join what shards attend to."""
        attention_us = self.attention_us(tiles_shared=False)
        if self.waiting == 0:
            return attention_us
        exchange_us = self._exchange_us()
        apart_us = exchange_us * self.lost + self._merges_us() + self._second_visits_us()
        return attention_us + self._returned_us() + min(exchange_us, apart_us)

    def ring_us(self) -> float:
        """Return the bound of rings: N - 1 transfers each way, each beside a step's attention."""
        transfers_us = ring_transfers_us(self.share, self.cp, self.setting)
        attention_us = self.attention_us(tiles_shared=True)
        return max(transfers_us, attention_us + transfers_us * self.lost)

    def attention_us(self, *, tiles_shared: bool) -> float:
        """Return the mean rank's attention, both ways; see `kernel.lower_bound_us`."""
        return _CALLS_A_RANK * sum(
            kernel.lower_bound_us(
                self.tokens,
                self.setting.attention_parameters(direction),
                _CALLS_A_RANK * self.cp,
                min(self.cp, int(self.tokens.sum())),
                self.share,
                tiles_shared,
            )
            for direction in DIRECTIONS
        )

    def _exchange_us(self) -> float:
        """Return the least time of the exchange, both ways; 0 where ranks span nodes."""
        setting, profile = self.setting, self.setting.profile
        per_node = profile.network.per_node(self.cp, setting.ranks_per_node)
        if per_node < self.cp:
            return 0.0
        # At any balance: one rank may have all the work.
        received = least_traffic_tokens(self.tokens, self.cp, imbalance=self.cp)
        kv_bytes = received * setting.model.kv_bytes_per_token
        # In parts as well: a curve may be steeper than in proportion somewhere.
        needed_us = 2 * min(
            parts * profile.all_to_all_v_us(kv_bytes / parts, self.cp, ranks_per_node=per_node).us
            for parts in range(1, setting.model.kv_heads + 1)
            if setting.model.kv_heads % parts == 0
        )
        gathered = kv_bytes * self.cp / (self.cp - 1)
        gathered_us = sum(
            profile.collective_us(name, gathered, self.cp, ranks_per_node=per_node).us
            for name in ("all_gather", "reduce_scatter")
        )
        return float(min(needed_us, gathered_us))

    def _returned_us(self) -> float:
        """Return the mean rank's sums of gradients that came home.

        The last shard of a document has at most C of its L tokens; every other shard is needed by
        another rank, as neighbours on one rank are one shard.
        """
        setting, copies = self.setting, self.setting.profile.copies
        kv_bytes = float(setting.model.kv_bytes_per_token)
        us = copies.estimate(1.5 * self.waiting * kv_bytes, 0, "in-place").us / self.cp
        if setting.copies == "published":
            everything = float(self.tokens.sum()) * kv_bytes
            us = min(us, 2 * copies.estimate(everything, 0, "per-shard").us)
        return us

    def _merges_us(self) -> float:
        """Return the mean rank's merges of what waits, both ways."""
        moved = merged_bytes(np.array([self.waiting]), self.setting)
        copies = self.setting.profile.copies
        return sum(copies.estimate(m.item(), 0, "in-place").us for m in moved) / self.cp

    def _second_visits_us(self) -> float:
        """Return the mean rank's second visits of query tiles that wait, where they are walked."""
        total = 0.0
        for direction in DIRECTIONS:
            p = self.setting.attention_parameters(direction)
            if p[kernel.BLOCKED]:
                continue
            tile_us = p[kernel.QUERY_ROW_US]
            if not p[kernel.KEY_OUTER]:
                tile_us += p[kernel.QUERY_TILE_US]
            rows = self.waiting * p[kernel.Q_HEADS] / (p[kernel.TILE_Q] * p[kernel.SMS])
            total += float(tile_us * rows)
        return total / self.cp
