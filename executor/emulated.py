"""Runs a job on one device: every rank's kernels and copies for real, the exchange from a profile.

What each rank's pieces take is measured while all ranks play in turn (`executor.emulate`), then put
on a timeline in the order in which a real run does them (`executor.composed`), with the profile's
time for each transfer and its factors for attention and transfers side by side. So an emulated
result holds everything of a prediction that a single device can prove or disprove, and says that
its exchange was not measured.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from costmodel.attention import CPU_KERNEL
from executor.composed import Times, compose, exchange_us
from executor.device import local_device, provenance, visible_devices
from executor.emulate import Emulation
from executor.errors import RunError
from executor.handle import Handle, prepare
from executor.inputs import DTYPES, Inputs, draw
from executor.job import Job
from executor.kernels import Kernel, select
from executor.layout import shard, unshard
from executor.memory import memory_bytes
from executor.record import Clock, Part
from executor.rows_of_ranks import rank_rows
from executor.verify import verify
from flashcp.plans import Plan
from flashcp.prediction import Setting


def emulate_job(job: Job, setting: Setting) -> dict[str, Any]:
    """Run a job on this process's device and return results as `executor.worker.run_job` does.

    Args:
        job: what to run.
        setting: the hardware whose exchange is assumed.

    Raises:
        RunError: no plan fits the device's memory.
    """
    device = local_device(job.options.device)
    with _threads_of_a_rank(device, setting):
        return _emulate(job, setting, device)


@contextmanager
def _threads_of_a_rank(device: torch.device, setting: Setting) -> Iterator[None]:
    """Give a CPU's kernels the threads that a rank of the profile had.

    All cores at once took half of what was predicted for ranks of one thread on two.
    """
    before, model = torch.get_num_threads(), setting.profile.attention
    if device.type == "cpu" and model.kernel == CPU_KERNEL and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(model.sms, visible_devices("cpu")))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _emulate(job: Job, setting: Setting, device: torch.device) -> dict[str, Any]:
    """Run the job with whatever threads this process has now."""
    kernel = select(
        device,
        DTYPES[job.options.dtype],
        job.model.head_dim,
        job.model.q_heads // job.model.kv_heads,
    )
    rows: dict[str, list[dict[str, Any]]] = {}
    skipped: dict[str, str] = {}
    for name, plan in zip(job.names, job.plans, strict=True):
        try:
            rows[name] = emulate_plan(plan, job, setting, kernel, device)
        except torch.OutOfMemoryError:
            # One GPU holds what would be spread over all: the other plans may fit.
            torch.cuda.empty_cache()
            needed = int(memory_bytes(plan, job.model).sum()) / 2**30
            skipped[name] = f"out of memory; all ranks together take up to {needed:.1f} GiB"
    if not rows:
        raise RunError(f"no plan fits {device}: {'; '.join(skipped.values())}")
    return {
        "environment": {
            **provenance(device),
            "attention_kernel": kernel.name,
            "emulated": True,
            "exchange_from": setting.profile.name,
        },
        "plans": rows,
        "skipped": skipped,
    }


def emulate_plan(
    plan: Plan, job: Job, setting: Setting, kernel: Kernel, device: torch.device
) -> list[dict[str, Any]]:
    """Verify and time one plan; a row a rank, as `executor.measure.run_plan`'s."""
    options = job.options
    handles = [
        prepare(plan, rank, device, copies=options.copies, gradients=options.gradients)
        for rank in range(plan.cp)
    ]
    scale = job.model.head_dim**-0.5
    pack = draw(plan, job, device)
    verification = None
    if job.options.verify:

        def run(inputs: Inputs) -> tuple[Tensor, ...]:
            return _gathered(Emulation(handles, kernel, scale), inputs, plan)

        found = verify(plan, pack, run, scale)
        verification = found.to_json() if found else None
    local = [_local(pack, plan, rank) for rank in range(plan.cp)]
    del pack
    timelines, sent = [], [0] * plan.cp
    for repetition in range(-job.options.warmups, job.options.repetitions):
        forward, backward, sent = _timed(local, handles, kernel, scale)
        if repetition >= 0:
            timelines.append(compose(plan, setting, forward, backward))
    rows = rank_rows(plan, timelines, exchange_us=exchange_us(plan, setting))
    for rank, row in enumerate(rows):
        row["sent_bytes"] = sent[rank]
        row["verification"] = verification if rank == 0 else None
    return rows


def _timed(
    local: list[Inputs], handles: list[Handle], kernel: Kernel, scale: float
) -> tuple[Times, Times, list[int]]:
    """Play forward and backward once; return each rank's pieces by name, and bytes sent."""
    clocks = [Clock(handle.device) for handle in handles]
    emulation = Emulation(handles, kernel, scale, clocks)
    emulation.forward([x.q for x in local], [x.k for x in local], [x.v for x in local])
    forward = [_by_name(clock) for clock in clocks]
    for clock in clocks:
        clock.restart()
    emulation.backward([x.dout for x in local])
    return forward, [_by_name(clock) for clock in clocks], emulation.sent_bytes


def _by_name(clock: Clock) -> dict[str, float]:
    times: dict[str, float] = {}
    for piece in clock.pieces():
        if piece.part is not Part.EXCHANGE:
            times[piece.name] = times.get(piece.name, 0.0) + piece.end_us - piece.start_us
    return times


def _local(pack: Inputs, plan: Plan, rank: int) -> Inputs:
    return pack.map(lambda x: shard(x, plan, rank))


def _gathered(emulation: Emulation, inputs: Inputs, plan: Plan) -> tuple[Tensor, ...]:
    local = [_local(inputs, plan, rank) for rank in range(plan.cp)]
    outs = emulation.forward([x.q for x in local], [x.k for x in local], [x.v for x in local])
    gradients = emulation.backward([x.dout for x in local])
    parts = [outs, *(list(one) for one in zip(*gradients, strict=True))]
    return tuple(unshard(part, plan) for part in parts)
