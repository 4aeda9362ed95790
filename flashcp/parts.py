"""The total and parts of `flashcp.predict`, without its timeline.

A sweep predicts hundreds of thousands of plans and draws none of them. The clocks of a ring, N
calls and N-1 transfers a direction on each rank, run in one compiled loop here; the other exchanges
need a few lines of array arithmetic. Equal to `predict` but for the order of additions (tested to
1e-9 on random packs, every strategy and exchange).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flashcp.exchange import Exchange
from flashcp.plan_costs import PlanCosts
from flashcp.plans import Plan
from flashcp.prediction import Direction, Setting
from groundwork.jit import jit

Clock = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """As `Prediction`, without the timeline."""

    forward_us: float
    backward_us: float
    exchange_us: float
    copies_us: float
    total_us: float
    forward_total_us: float


def predict_parts(plan: Plan, setting: Setting) -> Parts:
    """Predict `plan` on `setting`; see `flashcp.predict`."""
    costs = PlanCosts(plan, setting)
    one_way = _ring if plan.exchange is Exchange.RING else _joined
    forward, forward_us, copied = _parts(*one_way(costs, "forward", 0.0))
    total, backward_us, copied_back = _parts(*one_way(costs, "backward", forward))
    copies = copied + copied_back
    return Parts(
        forward_us=forward_us,
        backward_us=backward_us,
        exchange_us=total - forward_us - backward_us - copies,
        copies_us=copies,
        total_us=total,
        forward_total_us=forward,
    )


def _parts(ends: Clock, attention: Clock, copies: Clock) -> tuple[float, float, float]:
    """Return when one direction ends, and attention and copies of its busiest rank."""
    rank = int(np.argmax(attention + copies))
    return float(ends.max()), float(attention[rank]), float(copies[rank])


def _joined(costs: PlanCosts, direction: Direction, began_us: float) -> tuple[Clock, Clock, Clock]:
    """Return each rank's end, attention and copies of one direction."""
    copies, posted_us = costs.copies, began_us + costs.posting_us
    copied = copies.packed + copies.placed + copies.merged
    if direction == "backward":
        copied = copies.summed + copies.added + copies.returned
    if costs.plan.overlap:
        beside = costs.beside(direction, began_us)
        return np.maximum(beside.ends, posted_us), beside.attention, copied
    exchange_us = costs.exchange_us(direction)
    _, attention = costs.attention(direction)
    if direction == "forward":
        arrived = (began_us + copies.packed).max() + exchange_us
        ends = arrived + copies.placed + attention
        return np.maximum(ends, posted_us), attention, copied
    arrived = (began_us + attention + copies.summed).max() + exchange_us
    return np.maximum(arrived + copies.returned, posted_us), attention, copied


def _ring(costs: PlanCosts, direction: Direction, began_us: float) -> tuple[Clock, Clock, Clock]:
    transfer_us, merges = costs.ring_transfer(direction)
    calls, transfers = costs.ring_attention(direction, transfer_us)
    home_us = costs.ring_home_us(direction)
    ends, merged = _ring_ends(calls, merges, transfers, began_us, home_us)
    return ends, calls.sum(axis=0), merged


@jit
def _ring_ends(
    calls: NDArray[np.float64],
    merges: NDArray[np.float64],
    transfers: NDArray[np.float64],
    began_us: float,
    home_us: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a ring's clocks; calls [N, N], merges [N], transfers [N - 1] to ends [N], merges [N]."""
    ranks = merges.size
    compute = np.full(ranks, began_us)
    exchange = np.full(ranks, began_us)
    received = np.full(ranks, began_us)
    ready = np.zeros(ranks)
    merged = np.zeros(ranks)
    for step in range(ranks):
        for rank in range(ranks):
            began = max(received[rank], compute[rank])
            ready[rank] = max(exchange[rank], began)
            compute[rank] = began + calls[step, rank]
            if step > 0 and calls[step, rank] > 0:
                compute[rank] += merges[rank]
                merged[rank] += merges[rank]
        if step < ranks - 1:
            for rank in range(ranks):
                exchange[rank] = max(ready[rank], ready[rank - 1]) + transfers[step]
                received[rank] = exchange[rank]
    if home_us > 0:
        for rank in range(ranks):
            ready[rank] = max(exchange[rank], compute[rank])
        for rank in range(ranks):
            exchange[rank] = max(ready[rank], ready[rank - 1]) + home_us
    return np.maximum(compute, exchange), merged
