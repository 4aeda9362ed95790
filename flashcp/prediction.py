"""Predicts what a plan takes: one attention layer, forward and backward, slowest rank.

Forward: copy what others need into the send buffer's layout, exchange KV, attend. Backward: attend,
then send dK and dV back the way KV came, and copy them into place. A plan that overlaps attends in
two calls: every shard to its own keys while KV travels, then to what precedes it in its document;
the two outputs are merged by log-sum-exp. Backward the second comes first, so that its dKV travels
beside the other. A ring interleaves N attention
steps with N-1 transfers and merges partial outputs by log-sum-exp. Forward and backward each begin
in step on all ranks, because every layer's exchange waits for the slowest rank. Everything is
queued on a `Timeline`, whose last end is the predicted time. Attention and copies are what the
busiest rank does, exchange is what it waits, so that parts always sum to the total.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from costmodel.attention_kernel import EMPTY_TILE_US, THROTTLE
from costmodel.model_shape import ModelShape
from costmodel.profile import Profile
from costmodel.timeline import Clock, Kind, Stream, Timeline
from flashcp.exchange import Exchange
from flashcp.plan_costs import PlanCosts
from flashcp.plans import Plan

Copies = Literal["published", "in-place"]
Direction = Literal["forward", "backward"]
# Whose published implementation copies shard by shard around the kernel (the paper's Fig. 6).
# Names of kernel calls on the timeline.
_OWN, _PREFIXES, _ALL = "attention, own keys", "attention, prefixes", "attention"
_PER_SHARD = frozenset({"per-seq", "per-doc", "flashcp"})


@dataclass(frozen=True)
class Setting:
    """What a prediction depends on besides the plan.

    Attributes:
        profile: the hardware.
        model: the model's attention shape.
        ranks_per_node: ranks that share a node; None lets the profile decide.
        copies: "published" counts each strategy's copies as its authors run it (shard by shard for
            per-seq, per-doc and flashcp); "in-place" only what a layout without them must move.
    """

    profile: Profile
    model: ModelShape
    ranks_per_node: int | None = None
    copies: Copies = "published"

    @cached_property
    def _parameters(self) -> dict[tuple[Direction, bool, bool, bool, int], NDArray[np.float64]]:
        return {}

    def attention_parameters(
        self,
        direction: Direction,
        *,
        causal: bool = True,
        throttled: bool = True,
        empty_blocks: bool = True,
        chunks: int = 1,
    ) -> NDArray[np.float64]:
        """Return the compiled attention model's parameters for this model's heads.

        Args:
            direction: forward or backward.
            causal: under the causal mask, or without one.
            throttled: whether the clock drops under a long load.
            empty_blocks: whether blocks beyond their segment's end count.
            chunks: of how many equal parts of the heads one attends; divides the KV heads.
        """
        key = direction, causal, throttled, empty_blocks, chunks
        found = self._parameters.get(key)
        if found is None:
            model = self.model
            found = self.profile.attention.parameters(
                model.q_heads // chunks,
                model.kv_heads // chunks,
                model.head_dim,
                direction,
                causal=causal,
                cache_write=False,
            )
            left_out = [THROTTLE] * (not throttled) + [EMPTY_TILE_US] * (not empty_blocks)
            if left_out:
                found = found.copy()
                found[left_out] = 0.0
            self._parameters[key] = found
        return found

    def copies_shards(self, strategy: str) -> bool:
        """Tell whether `strategy`'s copies are counted shard by shard."""
        return self.copies == "published" and strategy in _PER_SHARD


@dataclass(frozen=True)
class Prediction:
    """A plan's predicted time and its parts on the busiest rank of each direction.

    Attributes:
        forward_us: attention kernels, forward.
        backward_us: attention kernels, backward.
        exchange_us: exchange that no kernel hides, both ways, waiting for other ranks included.
        copies_us: copies and merges, both ways.
        total_us: the sum of the four; forward + backward of one attention layer.
        forward_total_us: of which forward.
        timeline: what every rank does when.
    """

    forward_us: float
    backward_us: float
    exchange_us: float
    copies_us: float
    total_us: float
    forward_total_us: float
    timeline: Timeline


def predict(plan: Plan, setting: Setting) -> Prediction:
    """Predict the time of `plan` on `setting`.

    Raises:
        PlanError: the plan is for other nodes than the setting's.
        ProfileError: the ranks per node do not divide the CP degree.
    """
    run = _Run(plan, setting)
    run.forward()
    forward_entries = len(run.timeline.entries)
    forward_total = run.timeline.total_us
    forward = run.parts(slice(0, forward_entries), 0.0, forward_total)
    run.timeline.barrier()
    run.backward()
    total = run.timeline.total_us
    backward = run.parts(slice(forward_entries, None), forward_total, total)
    return Prediction(
        forward_us=forward[0],
        backward_us=backward[0],
        exchange_us=forward[1] + backward[1],
        copies_us=forward[2] + backward[2],
        total_us=total,
        forward_total_us=forward_total,
        timeline=run.timeline,
    )


class _Run:
    """Queues one plan's work on a timeline."""

    def __init__(self, plan: Plan, setting: Setting) -> None:
        self.plan = plan
        self.costs = PlanCosts(plan, setting)
        self.timeline = Timeline(plan.cp)

    def forward(self) -> None:
        if self.plan.exchange is Exchange.RING:
            self._ring("forward")
            return
        line, copies = self.timeline, self.costs.copies
        self._post()
        if not self.plan.overlap:
            packed = line.run(Kind.COPIES, "pack KV", copies.packed)
            arrived = self._exchange("forward", self.costs.exchange_us("forward"), packed)
            line.run(Kind.COPIES, "place KV", copies.placed, after=arrived)
            line.run(Kind.FORWARD, _ALL, self.costs.attention("forward")[1])
            return
        beside, chunks = self.costs.beside("forward"), self.costs.chunks
        came = []
        for _ in range(chunks):
            packed = line.run(Kind.COPIES, "pack KV", copies.packed / chunks)
            came.append(self._exchange("forward", beside.exchange_us, packed))
        line.run(Kind.FORWARD, _OWN, beside.own)
        for arrived, part in zip(came, beside.parts, strict=True):
            line.run(Kind.COPIES, "place KV", copies.placed / chunks, after=arrived)
            line.run(Kind.FORWARD, _PREFIXES, part)
            line.run(Kind.MERGE, "merge outputs", copies.merged / chunks)

    def backward(self) -> None:
        if self.plan.exchange is Exchange.RING:
            self._ring("backward")
            return
        line, copies = self.timeline, self.costs.copies
        self._post()
        if not self.plan.overlap:
            line.run(Kind.BACKWARD, _ALL, self.costs.attention("backward")[1])
            packed = line.run(Kind.COPIES, "sum dKV", copies.summed)
            arrived = self._exchange("backward", self.costs.exchange_us("backward"), packed)
            line.run(Kind.COPIES, "add dKV", copies.returned, after=arrived)
            return
        beside, chunks = self.costs.beside("backward"), self.costs.chunks
        came = []
        # What others wait for comes first, so that it travels while own keys are attended to.
        for part in beside.parts:
            line.run(Kind.BACKWARD, _PREFIXES, part)
            packed = line.run(Kind.COPIES, "sum dKV", copies.summed / chunks)
            came.append(self._exchange("backward", beside.exchange_us, packed))
        line.run(Kind.BACKWARD, _OWN, beside.own)
        line.run(Kind.MERGE, "add dQ", copies.added)
        for arrived in came:
            line.run(Kind.COPIES, "add dKV", copies.returned / chunks, after=arrived)

    def _post(self) -> None:
        """Queue what the host does, which goes on to the next layer when it has posted this one."""
        posting_us = self.costs.posting_us
        if posting_us.any():
            self.timeline.run(Kind.HOST, "post messages", posting_us, stream=Stream.HOST)

    def _exchange(self, direction: Direction, us: float, packed: Clock) -> Clock:
        """Queue a part of an exchange that takes `us`, in one step or in two; return its end, [cp].

        Home the same way as out: dKV is summed inside the node before it crosses.
        """
        line, levels = self.timeline, self.costs.two_levels
        what = "KV" if direction == "forward" else "dKV"
        if levels is None:
            return line.collective(what, us, after=packed)
        # Attention beside it slows all of its steps alike.
        alone_us = levels.whole(direction).us
        slower = us / alone_us if alone_us > 0 else 1.0
        rails = (f"{what}, across nodes", levels.across.us * slower)
        inside = (f"{what}, inside nodes", levels.inside.us * slower)
        if direction == "forward":
            came = line.collective(*rails, after=packed)
            if self.plan.bundled:
                passed_us, name = levels.passed_us * slower, "pass on KV"
                came = line.run(Kind.COPIES, name, passed_us, stream=Stream.EXCHANGE, after=came)
            return line.collective(*inside, after=came)
        came = line.collective(*inside, after=packed)
        summed_us = levels.summed_us * slower
        name = "sum dKV of the node"
        ready = line.run(Kind.COPIES, name, summed_us, stream=Stream.EXCHANGE, after=came)
        return line.collective(*rails, after=ready)

    def parts(self, entries: slice, begin_us: float, end_us: float) -> tuple[float, float, float]:
        """Return attention, exposed exchange and copies of the busiest rank.

        The one that the others wait for, wherever they do. The last to end need not be it: where
        what follows the exchange differs by rank, that may be one with next to no attention, whose
        waiting would look like exchange.
        """
        queued = [e for e in self.timeline.entries[entries] if e.stream is Stream.COMPUTE]
        spent = np.array([entry.end_us - entry.start_us for entry in queued])
        attends = np.array([entry.kind in (Kind.FORWARD, Kind.BACKWARD) for entry in queued])
        rank = int(np.argmax(spent.sum(axis=0)))
        attention = float(spent[attends, rank].sum())
        copies = float(spent[~attends, rank].sum())
        return attention, end_us - begin_us - attention - copies, copies

    def _ring(self, direction: Direction) -> None:
        plan, line = self.plan, self.timeline
        kind = Kind.FORWARD if direction == "forward" else Kind.BACKWARD
        transfer_us, merges = self.costs.ring_transfer(direction)
        calls, transfers = self.costs.ring_attention(direction, transfer_us)
        received = np.zeros(plan.cp) + line.total_us
        for step in range(plan.cp):
            began = np.maximum(received, line.now(Stream.COMPUTE))
            line.run(kind, f"attention, step {step}", calls[step], after=received)
            if step > 0:
                line.run(Kind.MERGE, "merge", np.where(calls[step] > 0, merges, 0.0))
            if step < plan.cp - 1:
                received = line.pass_on(f"KV, step {step}", float(transfers[step]), after=began)
        home_us = self.costs.ring_home_us(direction)
        if home_us > 0:
            # dKV travels a step behind its KV and needs one more to come home.
            line.pass_on("dKV home", home_us, after=line.now(Stream.COMPUTE))
