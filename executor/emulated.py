"""Runs a job on one device: every rank's kernels and copies for real, the exchange from a profile.

What each rank's pieces take is measured while all ranks play in turn (`executor.emulate`), then put
on a timeline in the order in which a real run does them, with the profile's time for each transfer
and its factor for attention beside which one runs. So an emulated result holds everything of a
prediction that a single device can prove or disprove, and says that its exchange was not measured.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from costmodel.timeline import Kind, Stream, Timeline
from executor.device import local_device, provenance
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
from flashcp.exchange import Exchange
from flashcp.plans import Plan
from flashcp.prediction import Setting, predict

_Times = list[dict[str, float]]  # of each rank, microseconds by piece


def emulate_job(job: Job, setting: Setting) -> dict[str, Any]:
    """Run a job on this process's device and return results as `executor.worker.run_job` does.

    Args:
        job: what to run.
        setting: the hardware whose exchange is assumed.

    Raises:
        RunError: no plan fits the device's memory.
    """
    device = local_device(job.options.device)
    kernel = select(device, DTYPES[job.options.dtype], job.model.head_dim)
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
    exchange = _assumed(plan, setting)
    factor = setting.profile.overlap_factor.value
    timelines, sent = [], [0] * plan.cp
    for repetition in range(-job.options.warmups, job.options.repetitions):
        forward, backward, sent = _timed(local, handles, kernel, scale)
        if repetition >= 0:
            timelines.append(_Composer(plan, exchange, factor).compose(forward, backward))
    rows = rank_rows(plan, timelines, exchange_us=sum(sum(us.values()) for us in exchange))
    for rank, row in enumerate(rows):
        row["sent_bytes"] = sent[rank]
        row["verification"] = verification if rank == 0 else None
    return rows


def _timed(
    local: list[Inputs], handles: list[Handle], kernel: Kernel, scale: float
) -> tuple[_Times, _Times, list[int]]:
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


def _assumed(plan: Plan, setting: Setting) -> tuple[dict[str, float], dict[str, float]]:
    """Return the profile's time of each transfer by name, forward and backward."""
    prediction = predict(plan, setting)
    us: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for entry in prediction.timeline.entries:
        if entry.kind is Kind.EXCHANGE:
            later = float(entry.start_us.min()) >= prediction.forward_total_us
            us[later][entry.name] = float((entry.end_us - entry.start_us).max())
    return us


class _Composer:
    """Puts measured pieces and assumed transfers in the order of a real run."""

    def __init__(
        self, plan: Plan, exchange_us: tuple[dict[str, float], ...], overlap_factor: float
    ) -> None:
        self._plan, self._assumed_us, self._factor = plan, exchange_us, overlap_factor
        self._exchange_us = exchange_us[0]
        self._line = Timeline(plan.cp)
        self._times: _Times = []

    def compose(self, forward: _Times, backward: _Times) -> tuple[Timeline, int]:
        """Return the timeline of a run, and how many of its entries are forward's."""
        self._times, self._exchange_us = forward, self._assumed_us[0]
        ring = self._plan.exchange is Exchange.RING
        (self._ring if ring else self._joined_forward)(*((Kind.FORWARD,) if ring else ()))
        entries = len(self._line.entries)
        self._line.barrier()
        self._times, self._exchange_us = backward, self._assumed_us[1]
        (self._ring if ring else self._joined_backward)(*((Kind.BACKWARD,) if ring else ()))
        return self._line, entries

    def _us(self, name: str) -> NDArray[np.float64]:
        return np.array([times.get(name, 0.0) for times in self._times])

    def _run(self, kind: Kind, name: str, after: NDArray[np.float64] | None = None) -> None:
        self._line.run(kind, name, self._us(name), after=after)

    def _collective(self, name: str) -> tuple[NDArray[np.float64] | None, float]:
        us = sum(self._exchange_us.values())  # of two levels one after the other
        if us == 0:
            return None, 0.0
        return self._line.collective(name, us, after=self._line.now(Stream.COMPUTE)), us

    def _joined_forward(self) -> None:
        self._run(Kind.COPIES, "pack KV")
        arrived, us = self._collective("KV")
        self._run(Kind.COPIES, "place own KV")
        self._local(Kind.FORWARD, arrived, us)
        self._run(Kind.COPIES, "place KV", after=arrived)
        self._run(Kind.FORWARD, "attention, rest")

    def _joined_backward(self) -> None:
        self._run(Kind.BACKWARD, "attention, rest")
        self._run(Kind.COPIES, "pack dKV")
        arrived, us = self._collective("dKV")
        self._local(Kind.BACKWARD, arrived, us)
        self._run(Kind.COPIES, "sum dKV of the node", after=arrived)
        self._run(Kind.COPIES, "place dKV", after=arrived)

    def _local(self, kind: Kind, arrived: NDArray[np.float64] | None, exchange_us: float) -> None:
        """Run attention in place, beside the exchange or after it."""
        us = self._us("attention, local")
        if self._plan.overlap and arrived is not None:
            factor = self._factor
            slowed = np.minimum(us * factor, us + exchange_us * (1 - 1 / factor))
            self._line.run(kind, "attention, local", slowed)
        else:
            self._line.run(kind, "attention, local", us, after=arrived)

    def _ring(self, kind: Kind) -> None:
        line, last = self._line, self._plan.cp - 1
        self._run(Kind.COPIES, "pack KV")
        received = line.now(Stream.COMPUTE)
        for step in range(self._plan.cp):
            began = np.maximum(received, line.now(Stream.COMPUTE))
            self._run(Kind.COPIES, f"take rows, step {step}", after=received)
            self._run(kind, f"attention, step {step}")
            self._run(Kind.MERGE, f"merge, step {step}")
            if step < last:
                us = self._exchange_us.get(f"KV, step {step}", 0.0)
                received = line.pass_on(f"KV, step {step}", us, after=began)
        if kind is Kind.BACKWARD and last > 0:
            home_us = self._exchange_us.get("dKV home", 0.0)
            line.pass_on("dKV home", home_us, after=line.now(Stream.COMPUTE))


def _local(pack: Inputs, plan: Plan, rank: int) -> Inputs:
    return pack.map(lambda x: shard(x, plan, rank))


def _gathered(emulation: Emulation, inputs: Inputs, plan: Plan) -> tuple[Tensor, ...]:
    local = [_local(inputs, plan, rank) for rank in range(plan.cp)]
    outs = emulation.forward([x.q for x in local], [x.k for x in local], [x.v for x in local])
    gradients = emulation.backward([x.dout for x in local])
    parts = [outs, *(list(one) for one in zip(*gradients, strict=True))]
    return tuple(unshard(part, plan) for part in parts)
