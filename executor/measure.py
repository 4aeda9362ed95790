"""Runs a plan for real and measures it: every rank, every part, and what leaves the rank.

Forward and backward are timed apart, each begun in step by all ranks, as predictions assume. What
an exchange takes by itself is measured with a kernel that computes nothing; what of it is exposed
is how long the rank waited in the real run. A GPU begins when the host has queued all of a pass
(`executor.head_start`). Everything is reported as repetitions, none dropped;
the picture is of the repetition with the median total.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from executor.agreement import agree
from executor.attend import attention
from executor.handle import Handle, Joined, prepare
from executor.head_start import HeadStart
from executor.inputs import Inputs, draw
from executor.job import Job
from executor.joined import Call
from executor.joined import backward as joined_backward
from executor.joined import forward as joined_forward
from executor.kernels import Segments, select
from executor.kernels.segments import Pair, Triple
from executor.layout import shard, unshard
from executor.progress import Progress
from executor.record import Clock, Part, Piece
from executor.ring import backward as ring_backward
from executor.ring import forward as ring_forward
from executor.transport import Transport, carry_out
from executor.verify import verify
from flashcp.plans import Plan

PARTS = tuple(part.value for part in Part)


class NoAttention:
    """A kernel that computes nothing, so that only the exchange and the copies take time."""

    name = "none"

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float,  # noqa: ARG002
        *, out: Tensor | None = None,
    ) -> Pair:  # fmt: skip
        """Return an output that was never written."""
        lse = q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)
        return torch.empty_like(q) if out is None else out, lse

    def backward(
        self, dout: Tensor, qkv: Triple, result: Pair, segments: Segments, scale: float,  # noqa: ARG002
        *, into: Triple | None = None,
    ) -> Triple:  # fmt: skip
        """Return gradients that were never written."""
        return into or (
            torch.empty_like(qkv[0]),
            torch.empty_like(qkv[1]),
            torch.empty_like(qkv[2]),
        )


@dataclass(frozen=True, eq=False)
class Rank:
    """This process's part in a run.

    Attributes:
        transport: over the context-parallel group.
        device: where tensors are.
        progress: what watches over hangs.
    """

    transport: Transport
    device: torch.device
    progress: Progress

    def barrier(self) -> None:
        """Wait until the device and every rank are here."""
        with self.progress.waiting():
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            dist.barrier(self.transport.group)


def run_plan(name: str, plan: Plan, job: Job, rank: Rank) -> dict[str, Any]:
    """Verify and time one plan on this rank.

    Returns:
        This rank's row: `rank`, `tokens`, `forward_us` and `backward_us` of each repetition,
        `parts` of each repetition by direction and part, `host_us` by direction where the device
        is a GPU, `exchange_us` of both directions by themselves, `sent_bytes`, `pieces` of the
        picture, and `verification` on rank 0.
    """
    rank.progress.at(f"preparing {name}")
    handle = prepare(
        plan,
        rank.transport.rank,
        rank.device,
        copies=job.options.copies,
        gradients=job.options.gradients,
    )
    pack = draw(plan, job, rank.device)
    local = pack.map(lambda x: shard(x, plan, handle.rank))
    rank.progress.at(f"trying attention kernels for {name}")  # alone, while nobody is waited for
    kernel_name(job, rank.device, local.q.dtype)
    rank.progress.at(f"comparing plans of {name}")
    with rank.progress.waiting():
        agree(handle, rank.transport, (local.q, local.k, local.v), job.model.head_dim**-0.5)
    verification = None
    if job.options.verify:
        rank.progress.at(f"verifying {name}")
        scale = job.model.head_dim**-0.5
        found = verify(plan, pack, lambda inputs: _gathered(inputs, handle, rank), scale)
        verification = found.to_json() if found else None
    del pack
    rank.barrier()
    rows, ahead = [], HeadStart(rank.device)
    for repetition in range(-job.options.warmups, job.options.repetitions):
        rank.progress.at(f"timing {name}, repetition {repetition}")
        if repetition == 0:
            with rank.progress.waiting():
                ahead.agree(rank.transport.group)
        row = _timed(local, handle, rank, ahead)
        if repetition >= 0:
            rows.append(row)
    middle = int(
        np.argsort([row["forward_us"] + row["backward_us"] for row in rows])[len(rows) // 2]
    )
    rank.progress.at(f"timing the exchange of {name}")
    return {
        "rank": handle.rank,
        "tokens": handle.tokens,
        "forward_us": [row["forward_us"] for row in rows],
        "backward_us": [row["backward_us"] for row in rows],
        "parts": {
            direction: {part: [row["parts"][direction][part] for row in rows] for part in PARTS}
            for direction in ("forward", "backward")
        },
        "host_us": rows[middle]["host_us"],
        "exchange_us": _exchange_us(local, handle, job, rank),
        "sent_bytes": rows[middle]["sent_bytes"],
        "pieces": rows[middle]["pieces"],
        "verification": verification,
    }


def _timed(local: Inputs, handle: Handle, rank: Rank, ahead: HeadStart) -> dict[str, Any]:
    """Run forward and backward once."""
    q, k, v = (x.requires_grad_() for x in (local.q, local.k, local.v))
    before = rank.transport.sent_bytes
    rank.barrier()
    ahead.give()
    clock = Clock(rank.device, waits=rank.progress.waiting)
    with ahead.queueing():
        out = attention(q, k, v, handle, rank.transport, record=clock)
    host_us = ahead.host_us
    with rank.progress.waiting():
        forward_us, forward = clock.elapsed_us(), clock.pieces()
    rank.barrier()
    ahead.give()
    clock.restart()
    with ahead.queueing():
        torch.autograd.grad(out, (q, k, v), local.dout)
    with rank.progress.waiting():
        backward_us, backward = clock.elapsed_us(), clock.pieces()
    return {
        "forward_us": forward_us,
        "backward_us": backward_us,
        "parts": {"forward": by_part(forward), "backward": by_part(backward)},
        "host_us": None if host_us is None else {"forward": host_us, "backward": ahead.host_us},
        "sent_bytes": rank.transport.sent_bytes - before,
        "pieces": {"forward": to_json(forward), "backward": to_json(backward)},
    }


def _exchange_us(local: Inputs, handle: Handle, job: Job, rank: Rank) -> float:
    """Return what the exchanges of both directions take when nothing else runs, the median."""
    totals = []
    for _ in range(max(job.options.repetitions, 1)):
        rank.barrier()
        clock = Clock(rank.device, waits=rank.progress.waiting)
        call = Call(NoAttention(), 1.0, clock)
        q, k, v = (x.detach() for x in (local.q, local.k, local.v))
        schedule = handle.schedule
        if isinstance(schedule, Joined):
            result = carry_out(joined_forward(schedule, call, q, k, v), rank.transport, clock)
            back = joined_backward(schedule, call, local.dout, (q, k, v), result)
        else:
            merged = carry_out(ring_forward(schedule, call, q, k, v), rank.transport, clock)
            back = ring_backward(schedule, call, local.dout, (q, k, v), merged)
        carry_out(back, rank.transport, clock)
        with rank.progress.waiting():
            totals.append(by_part(clock.pieces())[Part.EXCHANGE])
    return float(np.median(totals))


def _gathered(inputs: Inputs, handle: Handle, rank: Rank) -> tuple[Tensor, ...] | None:
    """Return out, dq, dk and dv of the pack on rank 0."""
    local = inputs.map(lambda x: shard(x, handle.plan, handle.rank))
    q, k, v = (x.requires_grad_() for x in (local.q, local.k, local.v))
    clock = Clock(rank.device, waits=rank.progress.waiting)
    out = attention(q, k, v, handle, rank.transport, record=clock)
    gradients = torch.autograd.grad(out, (q, k, v), local.dout)
    with rank.progress.waiting():
        results = [_gather(x.detach(), handle.plan, rank.transport) for x in (out, *gradients)]
    return tuple(x for x in results if x is not None) if handle.rank == 0 else None


def _gather(local: Tensor, plan: Plan, transport: Transport) -> Tensor | None:
    """Return a pack's tensor on rank 0 of every rank's part, [t, ...]."""
    most = int(plan.rank_tokens.max())
    padded = local.new_zeros((most, *local.shape[1:]))
    padded[: local.shape[0]] = local
    parts = [torch.empty_like(padded) for _ in range(plan.cp)] if transport.rank == 0 else None
    first = 0 if transport.group is None else dist.get_global_rank(transport.group, 0)
    dist.gather(padded, parts, dst=first, group=transport.group)
    if parts is None:
        return None
    tokens = plan.rank_tokens.tolist()
    return unshard([part[:t] for part, t in zip(parts, tokens, strict=True)], plan)


def by_part(pieces: list[Piece]) -> dict[str, float]:
    """Return the time of each part, in microseconds."""
    times = dict.fromkeys(PARTS, 0.0)
    for piece in pieces:
        times[piece.part] += piece.end_us - piece.start_us
    return times


def to_json(pieces: list[Piece]) -> list[list[Any]]:
    """Return pieces as [part, name, start_us, end_us]."""
    return [[piece.part.value, piece.name, piece.start_us, piece.end_us] for piece in pieces]


def kernel_name(job: Job, device: torch.device, dtype: torch.dtype) -> str:
    """Return the attention kernel that a job runs."""
    return select(device, dtype, job.model.head_dim, job.model.q_heads // job.model.kv_heads).name
