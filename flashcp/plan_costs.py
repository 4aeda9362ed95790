"""What each piece of a plan's work takes by itself: kernel calls, copies, exchanges, ring steps.

`flashcp.prediction` queues these on a timeline, `flashcp.parts` adds them up without
one. Both take every time from here, so they cannot differ in anything but how they add.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention import CPU_KERNEL
from costmodel.attention_kernel import LAUNCH_US, THROTTLE, THROTTLE_AFTER_US, attention_us
from costmodel.estimate import NOTHING, Estimate
from costmodel.timeline import Clock
from flashcp import pipeline
from flashcp.copied import LANDING, copied_tokens
from flashcp.copied_by_shard import shard_copies
from flashcp.errors import PlanError
from flashcp.exchange import Exchange, across_tokens, waiting_segments
from flashcp.exchange_times import TwoLevels, needed_exchange, two_level_exchange
from flashcp.messages import posting_us
from flashcp.overlap import side_by_side
from flashcp.ring import local_segments, ring_segments
from groundwork.jit import jit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.plans import Plan
    from flashcp.prediction import Direction, Setting


@dataclass(frozen=True)
class Copies:
    """What each rank copies in one direction of one layer, microseconds, [N] each.

    Attributes:
        packed: forward, into a send buffer.
        placed: forward, keys and values beside the kernel.
        merged: forward, outputs of the two calls of an overlapping plan.
        added: backward, their dQ.
        summed: backward, gradients of keys and values before they go home.
        returned: backward, gradients that came home, added to those of own attention.
    """

    packed: Clock
    placed: Clock
    merged: Clock
    added: Clock
    summed: Clock
    returned: Clock


def merged_bytes(waiting_tokens: "NDArray[np.int64]", setting: "Setting") -> "tuple[Clock, Clock]":
    """Return the bytes that merging the outputs of tokens that wait, and adding their dQ, moves.

    Counted as bytes read once and written once, as `CopyModel` does. Both read two results and
    write one; but on a CPU merging has no one operator in torch (`executor.merging`): of half
    precision a float32 product is written and read between, 14 bytes an element; of float32 20.
    """
    model = setting.model
    elements = waiting_tokens.astype(np.float64) * (model.q_heads * model.head_dim)
    added = 1.5 * model.dtype_bytes
    merged = added
    if setting.profile.attention.kernel == CPU_KERNEL:
        merged = 7.0 if model.dtype_bytes == 2 else 2.5 * model.dtype_bytes
    return elements * merged, elements * added


def prefixes_us(
    waiting: "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]",
    direction: "Direction",
    chunks: int,
    setting: "Setting",
) -> Clock:
    """Return each rank's time of attention to prefixes by one of `chunks` parts of the heads, [N].

    Args:
        waiting: from `flashcp.exchange.waiting_segments`.
        direction: forward or backward.
        chunks: parts.
        setting: hardware and model shape.
    """
    whole = setting.attention_parameters(direction, causal=False)
    if chunks == 1:
        found: Clock = attention_us(*waiting, whole)
        return found
    parameters = setting.attention_parameters(
        direction, causal=False, throttled=False, chunks=chunks
    )
    each: Clock = _alike(attention_us(*waiting, parameters), chunks, whole)
    return each


@jit
def _alike(call: Clock, calls: int, parameters: Clock) -> Clock:
    """Return the times of each of several calls alike, [N], as `_one_load` would."""
    times = np.empty(call.size)
    for rank in range(call.size):
        busy = max(call[rank] - parameters[LAUNCH_US], 0.0)
        load = busy
        for _ in range(calls - 1):
            load += busy  # as adding up an array does, to the bit
        slower = parameters[THROTTLE] * max(load - parameters[THROTTLE_AFTER_US], 0.0)
        times[rank] = call[rank] + busy * (slower / max(load, 1e-9))
    return times


def _one_load(calls: Clock, parameters: Clock) -> Clock:
    """Return the times of a rank's calls, [calls, N], that follow one another.

    To its clock they are one load, not several short ones.
    """
    busy = np.maximum(calls - parameters[LAUNCH_US], 0.0)
    load = busy.sum(axis=0)
    slower = parameters[THROTTLE] * np.maximum(load - parameters[THROTTLE_AFTER_US], 0.0)
    slowed: Clock = calls + busy * (slower / np.maximum(load, 1e-9))
    return slowed


class PlanCosts:
    """Times in microseconds of one plan's pieces, one attention layer; arrays are over ranks.

    Raises:
        PlanError: the plan is for other nodes than the setting's.
        ProfileError: the ranks per node do not divide the CP degree.
    """

    def __init__(self, plan: "Plan", setting: "Setting") -> None:
        self.ranks_per_node = setting.profile.network.per_node(plan.cp, setting.ranks_per_node)
        if plan.ranks_per_node not in (None, self.ranks_per_node):
            raise PlanError(
                f"the plan is for nodes of {plan.ranks_per_node} ranks, the setting has nodes of "
                f"{self.ranks_per_node}: make the plan anew, or set the ranks per node"
            )
        self.plan = plan
        self.setting = setting
        self.kv_bytes = setting.model.kv_bytes_per_token
        self.per_shard = setting.copies_shards(plan.strategy)

    @property
    def chunks(self) -> int:
        """Parts by heads in which KV travels."""
        return self.plan.chunks(self.setting.model.kv_heads)

    def attention(self, direction: "Direction") -> "tuple[Clock, Clock]":
        """Return each rank's time of the call beside the exchange, and of each that waits.

        An overlapping plan attends to each shard's own keys first, and from what waits to what
        precedes it in a second call, of one part of the heads after the other where KV travels in
        `chunks`; else everything waits.
        """
        plan = self.plan
        causal = self.setting.attention_parameters(direction)
        k_lens = plan.stop.astype(np.int64)
        q_lens = k_lens - plan.start
        if not plan.overlap:
            return np.zeros(plan.cp), attention_us(q_lens, k_lens, plan.rank_splits, causal)
        waiting = waiting_segments(plan.start, plan.stop, plan.rank_splits)
        return (
            attention_us(q_lens, q_lens, plan.rank_splits, causal),
            prefixes_us(waiting, direction, self.chunks, self.setting),
        )

    def beside(self, direction: "Direction", began_us: float = 0.0) -> pipeline.Beside:
        """Return what the attention and exchange of an overlapping plan take side by side."""
        copies, way = self.copies, pipeline.forward
        moved = copies.packed, copies.placed, copies.merged
        if direction == "backward":
            way, moved = pipeline.backward, (copies.summed, copies.added, copies.returned)
        return way(
            self.attention(direction),
            self.exchange_us(direction),
            self.chunks,
            moved,
            self.setting.profile,
            began_us,
        )

    @cached_property
    def copies(self) -> Copies:
        """What each rank copies in one direction."""
        plan, copies = self.plan, self.setting.profile.copies
        nothing = np.zeros(plan.cp)
        if plan.cp == 1:
            return Copies(nothing, nothing, nothing, nothing, nothing, nothing)
        merged = added = nothing
        if plan.overlap:
            both = merged_bytes(plan.waiting_tokens[1], self.setting)
            merged, added = (self._moved_us(moved) for moved in both)
        counted = self.per_shard and copies.queue_us is not None
        if counted and plan.exchange not in LANDING:
            packed, placed, summed, returned = self._shard_by_shard()
            return Copies(packed, placed, merged, added, summed, returned)
        if self.per_shard and not counted:
            # The published implementations lay out the KV of the whole pack for the kernel, and
            # FlashCP packs its non-last shards besides: so counted, its rows in the paper's
            # breakdown, which were not fitted to, come out 9 to 11% low.
            moved = np.full(plan.cp, float(plan.context_tokens))
            if plan.exchange is Exchange.ALL_GATHER_NON_LAST:
                moved += plan.non_last_tokens
            # The profile counts a shard's cost for both directions together.
            shards = np.diff(plan.rank_splits) / 2
            placed = copies.us_array(moved * self.kv_bytes, shards, "per-shard")
            return Copies(nothing, placed, merged, added, placed, nothing)
        tokens = copied_tokens(
            plan.exchange,
            plan.overlap,
            plan.held,
            self._sent_tokens(),
            self.setting.model.dtype_bytes,
            self.chunks,
            self._last_hop_tokens() if plan.bundled else None,
        )
        packed, placed, summed, returned = (
            self._moved_us(row * float(self.kv_bytes)) for row in tokens
        )
        return Copies(packed, placed, merged, added, summed, returned)

    def _shard_by_shard(self) -> Clock:
        """Return the times of published copies as `executor.published` does them, [4, N]."""
        setting = self.setting
        found = shard_copies(self.plan, setting.model.dtype_bytes)
        return setting.profile.copies.queued_us(
            found.tokens * float(self.kv_bytes),
            found.calls,
            host_copies=setting.profile.attention.kernel == CPU_KERNEL,
        )

    def _moved_us(self, moved_bytes: Clock) -> Clock:
        """Return the time of copying, in which a byte is read once and written once."""
        return self.setting.profile.copies.us_array(moved_bytes, np.zeros(self.plan.cp), "in-place")

    def _sent_tokens(self) -> "NDArray[np.int64]":
        """Return the own tokens that each rank sends, once for each receiver, or gathers."""
        if self.plan.exchange is Exchange.ALL_TO_ALL_NEEDED:
            return self.plan.needed_tokens[0]
        if self.plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
            across_sent, _, inside_sent, _ = self.plan.two_level_tokens
            return across_sent + inside_sent - self.plan.relayed_tokens[0]
        if self.plan.exchange is Exchange.ALL_GATHER_NON_LAST:
            return self.plan.non_last_tokens
        return self.plan.rank_tokens

    def _last_hop_tokens(self) -> "NDArray[np.int64]":
        """Return the tokens that each rank receives in an exchange's last hop."""
        if self.plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
            return self.plan.two_level_tokens[3]
        return self.plan.needed_tokens[1]

    @cached_property
    def posting_us(self) -> Clock:
        """What posting its messages takes each rank's host in one direction, [N].

        It runs ahead of the device, so a layer takes no less, one way, than this.
        """
        plan = self.plan
        if plan.bundled or plan.exchange not in LANDING:
            return np.zeros(plan.cp)
        return posting_us(plan.pieces, self.chunks, self.setting.profile.message_us.value)

    @cached_property
    def two_levels(self) -> TwoLevels | None:
        """The steps of one part of the exchange; None unless it has two levels."""
        plan = self.plan
        if plan.ranks_per_node is None or plan.cp == 1:
            return None
        return two_level_exchange(
            plan.two_level_tokens,
            plan.relayed_tokens,
            plan.cp,
            plan.ranks_per_node,
            self.setting,
            self.chunks,
            bundled=plan.bundled,
        )

    def exchange_us(self, direction: "Direction") -> float:
        """Return the time of the exchange of KV (forward) or of dKV (backward)."""
        return self.exchange(direction).us

    def exchange(self, direction: "Direction") -> Estimate:
        """Return the time of the exchange, or of a ring's step, and where it came from."""
        plan, setting = self.plan, self.setting
        if plan.cp == 1:
            return NOTHING
        if plan.exchange is Exchange.RING:
            # Backward passes KV on and, beside it, the fp32 dKV gathered so far.
            return self._pass_on(
                1.0 if direction == "forward" else 1.0 + 4 / setting.model.dtype_bytes
            )
        if plan.exchange is Exchange.ALL_TO_ALL_NEEDED:
            return self._needed_exchange
        if self.two_levels is not None:
            part = self.two_levels.whole(direction)
            return Estimate(self.chunks * part.us, part.source)
        # An all-gather wants equal parts: the largest sets the size.
        total = plan.cp * self._sent_tokens().max() * self.kv_bytes
        if total == 0:
            return NOTHING
        return setting.profile.collective_us(
            "all_gather" if direction == "forward" else "reduce_scatter",
            float(total),
            plan.cp,
            ranks_per_node=setting.ranks_per_node,
        )

    @cached_property
    def _needed_exchange(self) -> Estimate:
        plan = self.plan
        sent, received = plan.needed_tokens
        across = 0
        if self.ranks_per_node < plan.cp:
            shards = (plan.document, plan.rank, plan.start, plan.stop)
            across = max(t.max() for t in across_tokens(*shards, plan.cp, self.ranks_per_node))
        largest = max(sent.max(), received.max())
        return needed_exchange(float(largest), float(across), plan.cp, self.setting, self.chunks)

    def _pass_on(self, share: float) -> Estimate:
        """Return the time of passing on `share` times the KV of the largest rank."""
        return self.setting.profile.collective_us(
            "send_recv",
            float(self.plan.rank_tokens.max() * self.kv_bytes * share),
            self.plan.cp,
            ranks_per_node=self.setting.ranks_per_node,
        )

    def ring_attention(self, direction: "Direction", transfer_us: float) -> "tuple[Clock, Clock]":
        """Return the time of each step's call on each rank, [N steps, N], and transfer, [N - 1].

        Every step but the last runs beside a transfer of `transfer_us`, and each slows the other.
        The calls of a rank follow one another, so they are one load to its clock, not N short ones.
        """
        plan, setting = self.plan, self.setting
        shards = (plan.document, plan.start, plan.stop, plan.rank_splits)
        unthrottled = {
            causal: setting.attention_parameters(direction, causal=causal, throttled=False)
            for causal in (True, False)
        }
        lens, splits = local_segments(*shards)
        own = attention_us(lens, lens, splits, unthrottled[True])
        q_lens, k_lens, splits = ring_segments(*shards)
        others = attention_us(q_lens, k_lens, splits, unthrottled[False])
        calls = np.concatenate([own, others]).reshape(plan.cp, plan.cp)
        calls = _one_load(calls, setting.attention_parameters(direction))
        calls[:-1], transfers = side_by_side(calls[:-1], transfer_us, setting.profile)
        return calls, transfers

    def ring_home_us(self, direction: "Direction") -> float:
        """Return the time in which the last step's dKV travels to its own rank; 0 forward."""
        if direction == "forward" or self.plan.cp == 1:
            return 0.0
        return self._pass_on(4 / self.setting.model.dtype_bytes).us

    def ring_transfer(self, direction: "Direction") -> tuple[float, Clock]:
        """Return the time of one ring step and of one merge on each rank."""
        model, cp = self.setting.model, self.plan.cp
        if cp == 1:
            return 0.0, np.zeros(1)
        # A merge reads a step's result and reads and writes the fp32 running one; backward merges
        # dQ, and dK and dV. `us_array` counts a byte read and written as one byte moved.
        heads = model.q_heads + (direction == "backward") * 2 * model.kv_heads
        element_bytes = (model.dtype_bytes + 8) / 2
        merged = self.plan.rank_tokens.astype(np.float64) * heads * model.head_dim * element_bytes
        copies = self.setting.profile.copies
        return self.exchange_us(direction), copies.us_array(merged, np.zeros(cp), "in-place")
