"""A lower bound on what any plan of a pack can take.

Whatever the placement, the ranks share the pack's tiles and tokens and, where a document is too
long for a rank, its cuts; the slowest rank takes at least the mean. Three things are added:

- Attention: the tiles that undivided documents walk, and the ends of documents that more ranks than
  one cannot but hold (`costmodel.attention_bound`).
- What cuts cost: of a document of L tokens at least L - h wait for keys that travel, where h is the
  longest beginning that one rank may have, and ranks receive at least what `flashcp.traffic_bound`
  says. Either attention waits for all of it; or it runs beside it, each slows the other, ranks with
  tokens that wait make a second call, query tiles of what waits are visited twice and its outputs
  and dQ are merged. Either way gradients come home and are added to what is there.
- Rings share query tiles between shards and pass on all KV, so they have a bound of their own.

How long a rank may take limits its work, and so what it may have of a document. A plan that takes
no longer than T takes at least B(T), which falls with T, so no plan takes less than the smaller of
T and B(T), for any T: the best of a few is taken. On 128k packs at CP 8 that, and counting all the
gradients that come home, raised the bound by 0.7 to 2.9% in the mean (docs/research/auto.md).

It knows no rounding to tokens and no wait of ranks for each other.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from costmodel import attention_bound
from costmodel import attention_kernel as kernel
from costmodel.attention import DIRECTIONS
from flashcp.exchange_times import ring_transfers_us
from flashcp.plan_costs import merged_bytes
from flashcp.traffic_bound import least_received_tokens

if TYPE_CHECKING:
    from flashcp.prediction import Setting

_CALLS_A_RANK = 2  # what is local and what waits for the exchange
_ROUNDS = 6  # halvings of the range in which T and B(T) meet


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
    most = pack.ring_us()
    least = pack.joined_us(np.inf)
    if least >= most:
        return most
    upper = min(pack.joined_us(least), most)
    if upper == least:
        return least  # as where nothing has to be cut
    found = least
    for _ in range(_ROUNDS):
        middle = (least + upper) / 2
        bound = pack.joined_us(middle)
        found = max(found, min(middle, bound))
        if bound > middle:
            least, upper = middle, min(upper, bound)
        else:
            least, upper = max(least, bound), middle
    return found


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
    return _Pack(lengths, cp, setting).attention_us()


class _Pack:
    """What every plan of one pack must do."""

    def __init__(self, lengths: NDArray[np.int32], cp: int, setting: "Setting") -> None:
        self.tokens = np.asarray(lengths, dtype=np.int64)
        self.cp, self.setting = cp, setting
        self.pairs = float((0.5 * self.tokens * (self.tokens + 1)).sum())
        self.total = int(self.tokens.sum())
        self.share = -(-self.total // cp)
        # Share of an exchange that attention beside it loses, whether it or the exchange is longer.
        self.lost = 1 - 1 / setting.profile.overlap_factor.value

    def joined_us(self, limit_us: float) -> float:
        """Return the bound of plans that join what shards attend to and take no longer than that.

        Args:
            limit_us: infinite for all of them; where no plan is as fast, so may the bound be.
        """
        most_pairs = attention_bound.most_pairs_within(
            limit_us,
            self.total // self.cp,
            [self.setting.attention_parameters(direction) for direction in DIRECTIONS],
        )
        if most_pairs * self.cp < self.pairs:
            return np.inf
        return self.attention_us(most_pairs) + self._cuts_us(most_pairs)

    def ring_us(self) -> float:
        """Return the bound of rings: N - 1 transfers each way, each beside a step's attention."""
        transfers_us = ring_transfers_us(self.share, self.cp, self.setting)
        attention_us = self.attention_us(tiles_shared=True)
        return max(transfers_us, attention_us + transfers_us * self.lost)

    def attention_us(self, most_pairs: float = np.inf, *, tiles_shared: bool = False) -> float:
        """Return the mean rank's attention, both ways; see `attention_bound.lower_bound_us`."""
        return _CALLS_A_RANK * sum(
            attention_bound.lower_bound_us(
                self.tokens,
                self.setting.attention_parameters(direction),
                _CALLS_A_RANK * self.cp,
                min(self.cp, self.total),
                self.share,
                tiles_shared,
                most_pairs,
            )
            for direction in DIRECTIONS
        )

    def _cuts_us(self, most_pairs: float) -> float:
        """Return what cuts cost the mean rank, where none has more work than that."""
        beginning = min(float(self.share), attention_bound.longest_prefix(most_pairs))
        waiting = float(np.maximum(self.tokens - beginning, 0.0).sum())
        if waiting == 0.0:
            return 0.0
        largest, together, home = least_received_tokens(self.tokens, self.cp, most_pairs)
        exchange_us = self._exchange_us(max(largest, together / self.cp))
        apart_us = (
            exchange_us * self.lost
            + self._launches_us(waiting)
            + self._merges_us(waiting)
            + self._second_visits_us(waiting)
        )
        return min(exchange_us, apart_us) + self._returned_us(home, together)

    def _exchange_us(self, received: float) -> float:
        """Return the least time of the exchange, both ways; 0 where ranks span nodes."""
        setting, profile = self.setting, self.setting.profile
        if not self._on_one_node:
            return 0.0
        kv_bytes = received * setting.model.kv_bytes_per_token
        # In parts as well: a curve may be steeper than in proportion somewhere.
        needed_us = 2 * min(
            parts * profile.all_to_all_v_us(kv_bytes / parts, self.cp, ranks_per_node=self.cp).us
            for parts in range(1, setting.model.kv_heads + 1)
            if setting.model.kv_heads % parts == 0
        )
        gathered = kv_bytes * self.cp / (self.cp - 1)
        gathered_us = sum(
            profile.collective_us(name, gathered, self.cp, ranks_per_node=self.cp).us
            for name in ("all_gather", "reduce_scatter")
        )
        return float(min(needed_us, gathered_us))

    @cached_property
    def _on_one_node(self) -> bool:
        ranks = self.setting.profile.network.per_node(self.cp, self.setting.ranks_per_node)
        return ranks >= self.cp

    def _returned_us(self, home: float, received: float) -> float:
        """Return the mean rank's sums of gradients that came home.

        Args:
            home: tokens, of all ranks, that another rank needs.
            received: how often they are received; on two levels only once may be.
        """
        setting, copies = self.setting, self.setting.profile.copies
        came = received if self._on_one_node else home
        kv_bytes = float(setting.model.kv_bytes_per_token)
        us = copies.estimate((0.5 * came + home) * kv_bytes, 0, "in-place").us / self.cp
        if setting.copies == "published":
            everything = float(self.total) * kv_bytes
            us = min(us, 2 * copies.estimate(everything, 0, "per-shard").us)
        return us

    def _launches_us(self, waiting: float) -> float:
        """Return the mean rank's second calls; a rank has at most its share of what waits."""
        calls = np.ceil(waiting / self.share - 1e-9) / self.cp
        return float(
            sum(calls * self.setting.attention_parameters(d)[kernel.LAUNCH_US] for d in DIRECTIONS)
        )

    def _merges_us(self, waiting: float) -> float:
        """Return the mean rank's merges of what waits, both ways."""
        moved = merged_bytes(np.array([int(waiting)]), self.setting)
        copies = self.setting.profile.copies
        return sum(copies.estimate(m.item(), 0, "in-place").us for m in moved) / self.cp

    def _second_visits_us(self, waiting: float) -> float:
        """Return the mean rank's second visits of query tiles that wait, where they are walked."""
        total = 0.0
        for direction in DIRECTIONS:
            p = self.setting.attention_parameters(direction)
            if p[kernel.BLOCKED]:
                continue
            tile_us = p[kernel.QUERY_ROW_US]
            if not p[kernel.KEY_OUTER]:
                tile_us += p[kernel.QUERY_TILE_US]
            rows = waiting * p[kernel.Q_HEADS] / (p[kernel.TILE_Q] * p[kernel.SMS])
            total += float(tile_us * rows)
        return total / self.cp
