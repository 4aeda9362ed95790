"""Puts the pieces that one device measured and a profile's transfers in the order of a real run.

The order is a prediction's (`flashcp.prediction`), with measured times in the place of predicted
ones: of transfers the profile's, of attention beside one slowed, and slowing it, by the profile's
factors. So the two differ in nothing but the times.
"""

import numpy as np
from numpy.typing import NDArray

from costmodel.timeline import Kind, Stream, Timeline
from executor.joined import ALL, OWN, PREFIXES
from flashcp.exchange import Exchange
from flashcp.overlap import side_by_side
from flashcp.plan_costs import PlanCosts
from flashcp.plans import Plan
from flashcp.prediction import Direction, Setting

Times = list[dict[str, float]]  # of each rank, microseconds by piece
_Clock = NDArray[np.float64]


def exchange_us(plan: Plan, setting: Setting) -> float:
    """Return the profile's time of the exchanges of both directions by themselves."""
    costs = PlanCosts(plan, setting)
    if costs.two_levels is not None:
        return 2 * (costs.two_levels.across.us + costs.two_levels.inside.us)
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
        elif self._direction == "forward":
            self._forward()
        else:
            self._backward()

    def _us(self, name: str) -> _Clock:
        return np.array([times.get(name, 0.0) for times in self._times])

    def _queue(self, kind: Kind, name: str, after: _Clock | None = None) -> None:
        self._line.run(kind, name, self._us(name), after=after)

    def _forward(self) -> None:
        kind, overlap = self._kind, self._plan.overlap
        self._queue(Kind.COPIES, "pack KV")
        own_us, arrived = self._exchange("KV")
        self._queue(Kind.COPIES, "place own KV")
        if overlap:
            self._line.run(kind, OWN, own_us)
        self._queue(Kind.COPIES, "place KV", after=arrived)
        self._queue(kind, PREFIXES if overlap else ALL, after=arrived)
        if overlap:
            self._queue(Kind.MERGE, "merge outputs")

    def _backward(self) -> None:
        kind, overlap = self._kind, self._plan.overlap
        self._queue(kind, PREFIXES if overlap else ALL)
        self._queue(Kind.COPIES, "sum dKV")
        own_us, arrived = self._exchange("dKV")
        if overlap:
            self._line.run(kind, OWN, own_us)
            self._queue(Kind.MERGE, "add dQ")
        self._queue(Kind.COPIES, "add dKV", after=arrived)

    def _exchange(self, what: str) -> tuple[_Clock, _Clock | None]:
        """Queue the exchange; return attention to own keys beside it, and when it has ended."""
        line, levels, own = self._line, self._costs.two_levels, self._us(OWN)
        alone_us = self._costs.exchange_us(self._direction)
        if alone_us == 0:
            return own, None
        if levels is None:
            own, ended = side_by_side(own, alone_us, self._setting.profile)
            return own, line.collective(what, float(ended), after=line.now(Stream.COMPUTE))
        # What is passed on lies where it landed; home, the node's gradients are summed before they
        # cross.
        name = "sum dKV of the node"
        summed_us = self._us(name)
        alone_us = levels.across.us + levels.inside.us + float(summed_us.max())
        own, ended = side_by_side(own, alone_us, self._setting.profile)
        slower = float(ended) / alone_us
        rails = (f"{what}, across nodes", levels.across.us * slower)
        inside = (f"{what}, inside nodes", levels.inside.us * slower)
        first, last = (rails, inside) if what == "KV" else (inside, rails)
        came = line.collective(*first, after=line.now(Stream.COMPUTE))
        if what == "dKV":
            us = summed_us * slower
            came = line.run(Kind.COPIES, name, us, stream=Stream.EXCHANGE, after=came)
        return own, line.collective(*last, after=came)

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
