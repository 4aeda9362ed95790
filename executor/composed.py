"""Puts the pieces that one device measured and a profile's transfers in the order of a real run.

The order is a prediction's (`flashcp.prediction`), with measured times in the place of predicted
ones: of transfers the profile's, of attention beside one slowed, and slowing it, by the profile's
factors. So the two differ in nothing but the times.
"""

import numpy as np
from numpy.typing import NDArray

from costmodel.timeline import Kind, Stream, Timeline
from executor.joined import ALL, OWN, PREFIXES
from flashcp import pipeline
from flashcp.exchange import Exchange
from flashcp.overlap import side_by_side
from flashcp.plan_costs import PlanCosts
from flashcp.plans import Plan
from flashcp.prediction import Direction, Setting

Times = list[dict[str, float]]  # of each rank, microseconds by piece
_Clock = NDArray[np.float64]
_SUMS, _PASSED = "sum dKV of the node", "pass on KV"


def exchange_us(plan: Plan, setting: Setting) -> float:
    """Return the profile's time of the exchanges of both directions by themselves."""
    costs = PlanCosts(plan, setting)
    if costs.two_levels is not None:
        return 2 * costs.chunks * (costs.two_levels.across.us + costs.two_levels.inside.us)
    steps = plan.cp - 1 if plan.exchange is Exchange.RING else 1
    directions: tuple[Direction, ...] = ("forward", "backward")
    return sum(steps * costs.exchange_us(d) + _home_us(costs, d) for d in directions)


def compose(plan: Plan, setting: Setting, forward: Times, backward: Times) -> tuple[Timeline, int]:
    """Return the timeline of a run, and how many of its entries are forward's."""
    line = Timeline(plan.cp)
    _Direction(plan, setting, line, "forward", forward).run()
    entries = len(line.entries)
    line.barrier()
    _Direction(plan, setting, line, "backward", backward).run()
    return line, entries


class _Direction:
    """Queues one direction of one plan."""

    def __init__(
        self, plan: Plan, setting: Setting, line: Timeline, direction: Direction, times: Times
    ) -> None:
        self._plan, self._setting, self._line, self._times = plan, setting, line, times
        self._direction = direction
        self._kind = Kind.FORWARD if direction == "forward" else Kind.BACKWARD
        self._costs = PlanCosts(plan, setting)

    def run(self) -> None:
        if self._plan.exchange is Exchange.RING:
            self._ring()
            return
        if self._costs.posting_us.any():
            posting_us = self._costs.posting_us
            self._line.run(Kind.HOST, "post messages", posting_us, stream=Stream.HOST)
        if self._direction == "forward":
            self._forward()
        else:
            self._backward()

    def _us(self, name: str) -> _Clock:
        return np.array([times.get(name, 0.0) for times in self._times])

    def _queue(self, kind: Kind, name: str, after: _Clock | None = None, *, share: int = 1) -> None:
        self._line.run(kind, name, self._us(name) / share, after=after)

    def _forward(self) -> None:
        kind, chunks = self._kind, self._costs.chunks
        beside = self._beside()
        came = []
        for _ in range(chunks):
            self._queue(Kind.COPIES, "pack KV", share=chunks)
            came.append(self._exchange("KV", beside))
        self._queue(Kind.COPIES, "place own KV")
        if beside is None:
            self._queue(Kind.COPIES, "place KV", after=came[0])
            self._queue(kind, ALL, after=came[0])
            return
        self._line.run(kind, OWN, beside.own)
        for arrived, part in zip(came, beside.parts, strict=True):
            self._queue(Kind.COPIES, "place KV", after=arrived, share=chunks)
            self._line.run(kind, PREFIXES, part, after=arrived)
            self._queue(Kind.MERGE, "merge outputs", share=chunks)

    def _backward(self) -> None:
        kind, chunks = self._kind, self._costs.chunks
        beside = self._beside()
        came = []
        for part in self._us(ALL)[None] if beside is None else beside.parts:
            self._line.run(kind, ALL if beside is None else PREFIXES, part)
            self._queue(Kind.COPIES, "sum dKV", share=chunks)
            came.append(self._exchange("dKV", beside))
        if beside is not None:
            self._line.run(kind, OWN, beside.own)
            self._queue(Kind.MERGE, "add dQ")
        for arrived in came:
            self._queue(Kind.COPIES, "add dKV", after=arrived, share=chunks)

    def _beside(self) -> pipeline.Beside | None:
        """Return what attention and exchange take side by side; None without overlap."""
        if not self._plan.overlap:
            return None
        chunks, back = self._costs.chunks, self._direction == "backward"
        names = (
            ("sum dKV", "add dQ", "add dKV") if back else ("pack KV", "place KV", "merge outputs")
        )
        copies = (self._us(names[0]), self._us(names[1]), self._us(names[2]))
        run = pipeline.backward if back else pipeline.forward
        attention = self._us(OWN), self._us(PREFIXES) / chunks
        alone_us = chunks * self._alone_us()
        return run(attention, alone_us, chunks, copies, self._setting.profile)

    def _alone_us(self) -> float:
        """Return what a part of the exchange takes, with what a node's ranks sum in between."""
        levels = self._costs.two_levels
        if levels is None:
            return self._costs.exchange_us(self._direction) / self._costs.chunks
        between = _PASSED if self._direction == "forward" else _SUMS
        between_us = float(self._us(between).max()) / self._costs.chunks
        return levels.across.us + levels.inside.us + between_us

    def _exchange(self, what: str, beside: pipeline.Beside | None) -> _Clock | None:
        """Queue a part of the exchange; return when it has ended, None where nothing travels."""
        line, levels, alone_us = self._line, self._costs.two_levels, self._alone_us()
        if self._costs.exchange_us(self._direction) == 0:
            return None
        us = alone_us if beside is None else beside.exchange_us
        if levels is None:
            return line.collective(what, us, after=line.now(Stream.COMPUTE))
        # What is passed on lies where it landed, but for bundles; home, the node's gradients are
        # summed before they cross.
        slower = us / alone_us
        rails = (f"{what}, across nodes", levels.across.us * slower)
        inside = (f"{what}, inside nodes", levels.inside.us * slower)
        first, last = (rails, inside) if what == "KV" else (inside, rails)
        came = line.collective(*first, after=line.now(Stream.COMPUTE))
        between = _SUMS if what == "dKV" else _PASSED
        if what == "dKV" or self._plan.bundled:
            between_us = self._us(between) / self._costs.chunks * slower
            came = line.run(Kind.COPIES, between, between_us, stream=Stream.EXCHANGE, after=came)
        return line.collective(*last, after=came)

    def _ring(self) -> None:
        line, cp = self._line, self._plan.cp
        calls = np.array([self._us(f"attention, step {step}") for step in range(cp)])
        transfer_us = self._costs.exchange_us(self._direction)
        calls[:-1], transfers = side_by_side(calls[:-1], transfer_us, self._setting.profile)
        self._queue(Kind.COPIES, "pack KV")
        received = line.now(Stream.COMPUTE)
        for step in range(cp):
            began = np.maximum(received, line.now(Stream.COMPUTE))
            self._queue(Kind.COPIES, f"take rows, step {step}", after=received)
            line.run(self._kind, f"attention, step {step}", calls[step])
            self._queue(Kind.MERGE, f"merge, step {step}")
            if step < cp - 1:
                received = line.pass_on(f"KV, step {step}", float(transfers[step]), after=began)
        home_us = _home_us(self._costs, self._direction)
        if home_us > 0:
            line.pass_on("dKV home", home_us, after=line.now(Stream.COMPUTE))


def _home_us(costs: PlanCosts, direction: Direction) -> float:
    ring = costs.plan.exchange is Exchange.RING
    return costs.ring_home_us(direction) if ring else 0.0
