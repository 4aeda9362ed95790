"""A plan made ready for one rank and device: every index tensor, built once for all layers."""

from dataclasses import dataclass, field

import torch

from executor.bundled import Bundled
from executor.errors import RunError
from executor.gathered import Gathered
from executor.joined import Keys
from executor.kernels.segments import Segments
from executor.landed import Landed
from executor.landing import landing
from executor.layout import placement
from executor.placement import Placement
from executor.published import PER_SHARD, Published
from executor.ring_routes import own_lens, ring_step
from executor.routes import padded_rows
from executor.rows import Rows, rows
from executor.waiting import Calls, calls
from executor.ways import Copies, Gradients, Ways
from flashcp.exchange import Exchange
from flashcp.plans import Plan


@dataclass(frozen=True, eq=False)
class Joined:
    """How one rank's keys come together before attention.

    Attributes:
        plan: the plan, which says in how many parts KV travels.
        overlap: whether own keys are attended to in a call of their own, beside the exchange.
        own: segments of all local rows, whose keys are read where they lie; None where none are.
        first: local rows before those that wait for the exchange.
        waiting: segments of those; None where there is none.
        keys: what brings their keys together.
    """

    plan: Plan
    overlap: bool
    own: Segments | None
    first: int
    waiting: Segments | None
    keys: Keys


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
        following: the rank that KV is passed on to.
        preceding: the rank that it comes from.
        most_tokens: rows of the buffers that travel.
        steps: from 0, the rank's own KV, to N - 1.
    """

    following: int
    preceding: int
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
        ways: the ways to copy and to return gradients, which ranks must share.
    """

    plan: Plan
    rank: int
    device: torch.device
    tokens: int
    schedule: Joined | Ring
    ways: Ways
    # (group, shape) pairs whose ranks were found to hold the same plan; see executor.agreement.
    agreed: set[object] = field(default_factory=set, repr=False)


def prepare(
    plan: Plan,
    rank: int,
    device: torch.device | str = "cpu",
    *,
    copies: Copies = "in-place",
    gradients: Gradients = "all-to-all",
) -> Handle:
    """Build what `attention` needs of `plan` on one rank, once a plan.

    Call it on the stream that attention will run on: its indices are freed to that stream.

    Args:
        plan: the plan; the same one on every rank.
        rank: this process's rank in the context-parallel group, 0 to cp - 1.
        device: where tensors will be.
        copies: "published" copies KV of per-seq, per-doc and flashcp shard by shard, as published
            implementations do, to compare with; "in-place" never does.
        gradients: how those of all-gathered KV go home: "all-to-all" in the tensors' precision,
            summed in float32 by the owner, or "reduce-scatter" in float32.

    Raises:
        RunError: the plan has no such rank.
        PlanError: a token of the plan is on no rank, or on two.
    """
    if not 0 <= rank < plan.cp:
        raise RunError(f"rank {rank} is not in 0..{plan.cp - 1}, the ranks of this plan")
    plan.validate()
    device = torch.device(device)
    if device == torch.device("cuda"):  # whichever is current
        device = torch.device("cuda", torch.cuda.current_device())
    placed, ways = placement(plan), Ways(copies, gradients)
    return Handle(
        plan=plan,
        rank=rank,
        device=device,
        tokens=placed.tokens(rank),
        schedule=_ring(placed, rank, device)
        if plan.exchange is Exchange.RING
        else _joined(placed, rank, device, ways),
        ways=ways,
    )


def _joined(placed: Placement, rank: int, device: torch.device, ways: Ways) -> Joined:
    found = calls(placed, rank)
    return Joined(
        plan=placed.plan,
        overlap=found.apart,
        own=Segments.of(found.own_lens, found.own_lens, device),
        first=found.first,
        waiting=Segments.of(found.q_lens, found.k_lens, device, causal=not found.apart),
        keys=_keys(placed, rank, device, found, ways),
    )


def _keys(placed: Placement, rank: int, device: torch.device, found: Calls, ways: Ways) -> Keys:
    plan = placed.plan
    gathers = plan.exchange in (Exchange.ALL_GATHER, Exchange.ALL_GATHER_NON_LAST)
    if not gathers or padded_rows(placed) == 0:
        lands = landing(placed, rank)
        if plan.bundled and lands.hops:
            return Bundled.of(lands, plan.cp, found.in_place, device)
        return Landed.of(lands, found.in_place, device)
    scatters = ways.gradients == "reduce-scatter"
    if ways.copies == "published" and plan.strategy in PER_SHARD:
        return Published.of(placed, rank, found, device, scatters=scatters)
    return Gathered.of(placed, rank, found, device, scatters=scatters)


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
    return Ring(
        following=(rank + 1) % placed.plan.cp,
        preceding=(rank - 1) % placed.plan.cp,
        most_tokens=placed.most_tokens,
        steps=tuple(steps),
    )
