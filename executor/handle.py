"""A plan made ready for one rank and device: every index tensor, built once for all layers."""

from dataclasses import dataclass, field

import torch

from executor.errors import RunError
from executor.kernels.segments import Segments
from executor.layout import placement
from executor.placement import Placement, splits_calls
from executor.ring_routes import own_lens, ring_step
from executor.routes import Route, route
from executor.rows import Rows, rows
from flashcp.exchange import Exchange
from flashcp.plans import Plan


@dataclass(frozen=True, eq=False)
class Joined:
    """How one rank's keys come together; see `executor.routes.Route`.

    Attributes:
        route: splits and sizes of the exchange.
        overlap: whether what needs no exchange is attended while it runs.
        send: local rows to send.
        own: local rows that follow the received ones.
        join: rows of received and own ones that the waiting call reads.
        local: segments attended in place; None where there is none.
        waiting: segments that wait for the exchange; None where there is none.
    """

    route: Route
    overlap: bool
    send: Rows
    own: Rows
    join: Rows
    local: Segments | None
    waiting: Segments | None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a ring; see `executor.ring_routes.RingStep`.

    Attributes:
        queries: local rows that attend.
        keys: rows of the KV held that they attend to.
        segments: of the call; None where the rank has nothing to attend to.
    """

    queries: Rows
    keys: Rows
    segments: Segments | None


@dataclass(frozen=True, eq=False)
class Ring:
    """The steps of a ring.

    Attributes:
        most_tokens: rows of the buffers that travel.
        steps: from 0, the rank's own KV, to N - 1.
    """

    most_tokens: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Handle:
    """A plan on one rank and device; made by `prepare`, used by `attention`.

    Attributes:
        plan: the plan.
        rank: the rank within the context-parallel group.
        device: where the index tensors are.
        tokens: tokens that the rank holds.
        schedule: how KV comes together.
    """

    plan: Plan
    rank: int
    device: torch.device
    tokens: int
    schedule: Joined | Ring
    # (group, shape) pairs whose ranks were found to hold the same plan; see executor.agreement.
    agreed: set[object] = field(default_factory=set, repr=False)


def prepare(plan: Plan, rank: int, device: torch.device | str = "cpu") -> Handle:
    """Build what `attention` needs of `plan` on one rank, once a plan.

    Args:
        plan: the plan; the same one on every rank.
        rank: this process's rank in the context-parallel group, 0 to cp - 1.
        device: where tensors will be.

    Raises:
        RunError: the plan has no such rank.
        PlanError: a token of the plan is on no rank, or on two.
    """
    if not 0 <= rank < plan.cp:
        raise RunError(f"rank {rank} is not in 0..{plan.cp - 1}, the ranks of this plan")
    plan.validate()
    device = torch.device(device)
    placed = placement(plan)
    make = _ring if plan.exchange is Exchange.RING else _joined
    return Handle(
        plan=plan,
        rank=rank,
        device=device,
        tokens=placed.tokens(rank),
        schedule=make(placed, rank, device),
    )


def _joined(placed: Placement, rank: int, device: torch.device) -> Joined:
    found = route(placed, rank)
    return Joined(
        route=found,
        overlap=splits_calls(placed.plan),
        send=rows(found.send, device),
        own=rows(found.own, device),
        join=rows(found.join, device),
        local=Segments.of(found.local_lens, found.local_lens, device),
        waiting=Segments.of(found.q_lens, found.k_lens, device),
    )


def _ring(placed: Placement, rank: int, device: torch.device) -> Ring:
    lens, everything = own_lens(placed, rank), slice(0, placed.tokens(rank))
    steps = [Step(everything, everything, Segments.of(lens, lens, device))]
    for index in range(1, placed.plan.cp):
        found = ring_step(placed, rank, index)
        steps.append(
            Step(
                queries=rows(found.queries, device),
                keys=rows(found.keys, device),
                segments=Segments.of(found.q_lens, found.k_lens, device, causal=False),
            )
        )
    return Ring(most_tokens=placed.most_tokens, steps=tuple(steps))
