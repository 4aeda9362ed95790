"""One calibration: starts the ranks, or is one of torchrun's, and brings back what was measured.

Rank 0 decides what is measured next, keeps the points, and measures alone what one device does by
itself, while the others wait; exchanges are measured by all. A stage that has run out of its time
ends early: its points come in an order in which any first part covers the whole range. So a
calibration takes about as long on a slow machine as on a fast one, with fewer points.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from costmodel.calibrated import Conditions
from costmodel.calibrated_conditions import kernel_family, launch_mode
from costmodel.calibrated_points import MessagePoint, OverlapPoint, Point
from executor.calibration import attention, local, messages, overlap, transfers
from executor.calibration.countdown import Countdown
from executor.calibration.groups import LOCAL_S, groups_of, join
from executor.calibration.request import Request
from executor.calibration.store import Progress, Store, read_progress
from executor.calibration.timing import Stopwatch
from executor.calibration.transfers import Group
from executor.device import local_device, provenance, ranks_here
from executor.errors import RunError
from executor.inputs import DTYPES
from executor.kernels import select
from executor.worker import cause

_POLL_S = 0.2
_TELL_S = 0.2
_OVERLAP_S = 3.0


def calibrate(request: Request, on_progress: Callable[[Progress], None]) -> dict[str, Any] | None:
    """Measure this machine.

    Args:
        request: what to measure, on how many ranks; one alone needs no group.
        on_progress: told how far it is, a few times a second.

    Returns:
        `conditions`, as `Conditions` takes them, `resumed`, the points that an interrupted
        calibration had left, and `planned`, the points that there would be had the time sufficed;
        the points themselves are in the request's store. None on the ranks of torchrun but the
        first.

    Raises:
        RunError: a rank failed, no GPU, too little memory, a group that did not form.
        OSError: the store cannot be written.
    """
    if in_torchrun() or request.ranks == 1:
        return _as_one_rank(request, on_progress)
    from executor.launch import launch  # noqa: PLC0415 - the elastic launcher takes half a second

    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(request, on_progress, ended), daemon=True)
    watcher.start()
    try:
        return launch(request, ("-m", "executor.calibration.worker"))
    finally:
        ended.set()
        watcher.join()


def in_torchrun() -> bool:
    """Tell whether this process is one of a group that torchrun started."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _as_one_rank(
    request: Request, on_progress: Callable[[Progress], None]
) -> dict[str, Any] | None:
    try:
        return measure_all(request, on_progress)
    except (OSError, RunError):
        raise
    # Of many ranks the tracebacks would bury the one line that matters.
    except Exception as error:
        raise RunError(f"rank {os.environ.get('RANK', '0')}: {cause(error)}") from error


def measure_all(request: Request, on_progress: Callable[[Progress], None]) -> dict[str, Any] | None:
    """Measure as one rank of the group that the environment describes, or alone."""
    device = local_device(request.device)
    grouped = request.ranks > 1 or in_torchrun()
    control = join(request, device) if grouped else None
    try:
        groups = groups_of(request.ranks, device) if grouped else []
        return _Session(request, device, control, groups, on_progress).run()
    finally:
        if grouped:
            dist.destroy_process_group()


class _Session:
    """One rank's part in a calibration."""

    def __init__(
        self,
        request: Request,
        device: torch.device,
        control: dist.ProcessGroup | None,
        groups: Sequence[Group],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.request, self.effort = request, request.effort
        self.control, self.groups = control, groups
        self.watch = Stopwatch(device)
        self.on_progress = on_progress
        self.first = control is None or dist.get_rank() == 0
        self.conditions = _conditions(request, device)
        self.store: Store | None = None
        stage_s = {"copies": LOCAL_S, "attention": self.effort.attention_s}
        if groups:
            stage_s |= {"exchanges": self.effort.transfers_s, "overlap": _OVERLAP_S}
        self.countdown = Countdown(stage_s)
        self.told = -_TELL_S

    def run(self) -> dict[str, Any] | None:
        problem: Exception | None = None
        if self.first:
            try:
                # A calibration of yesterday resumes today.
                key = {k: v for k, v in asdict(self.conditions).items() if k != "date"}
                self.store = Store(self.request.store, key)
                self._alone()
            except Exception as error:  # noqa: BLE001 - raised again below
                problem = error
        # The others are told of trouble, so that they do not wait for a rank that is gone.
        if self._agree(problem is not None):
            if problem is not None:
                raise problem
            raise RunError("rank 0 could not measure; see its own message")
        for group in self.groups:
            self._exchanges(group)
        if self.groups:
            beside = {"collective": overlap.COLLECTIVE, "ranks": self.groups[-1].ranks}
            for what, measure in (
                ({"kind": OverlapPoint.kind, **beside}, overlap.measure_overlap),
                ({"kind": MessagePoint.kind}, messages.measure_message),
            ):
                self._together(what, measure, self.groups[-1])
        if self.store is None:
            return None
        self.store.close()
        return {
            "conditions": asdict(self.conditions),
            "resumed": self.store.resumed,
            "planned": sum(self.countdown.planned.values()),
        }

    def _alone(self) -> None:
        """Measure what one device does by itself."""
        effort, watch, dtype = self.effort, self.watch, DTYPES[self.request.dtype]
        if self.store is None:
            raise AssertionError("rank 0 keeps the points")
        calls = []
        for head_dim in effort.head_dims:
            probe = partial(attention.largest_pairs, effort, head_dim, watch, dtype)
            pairs = self.store.fact(f"pairs, head size {head_dim}", probe)
            calls.append(attention.planned_calls(effort, head_dim, watch.device, pairs))
        copies = local.planned(effort.copy_bytes, watch.device)
        planned = self.countdown.planned
        planned["copies"] = len(copies)
        planned["attention"] = 2 * sum(map(len, calls))
        if self.groups:
            curves = [transfers.planned(effort.transfer_bytes, g.ranks) for g in self.groups]
            exchanges = sum(len(curve) for group in curves for curve in group)
            planned |= {"exchanges": exchanges, "overlap": 2}
        self._each(
            "copies",
            [
                ([what], partial(local.measure, what, watch, effort.repeats, dtype))
                for what in copies
            ],
        )
        # Head sizes in turn, so that time that runs out is short for none of them.
        in_turn = [call for pair in zip(*calls, strict=True) for call in pair]
        self._each(
            "attention",
            [
                (
                    list(attention.identities(call)),
                    partial(attention.measure, call, watch, effort.repeats, dtype),
                )
                for call in in_turn
            ],
        )

    def _each(
        self,
        stage: str,
        work: Iterable[tuple[list[dict[str, Any]], Callable[[], Sequence[Point]]]],
    ) -> None:
        """Measure what is not in the store yet, until the stage's time is up."""
        if self.store is None:
            raise AssertionError("rank 0 keeps the points")
        self._tell(stage)
        began = time.monotonic()
        for what, measure in work:
            if time.monotonic() - began > self.countdown.stage_s[stage]:
                break
            if not all(self.store.holds(one) for one in what):
                for point in measure():
                    self.store.add(point)
            self._tell(stage)

    def _exchanges(self, group: Group) -> None:
        """Measure the exchanges of a group; rank 0 says which, its members measure."""
        began = time.monotonic()
        limit_s = self.countdown.stage_s["exchanges"] / len(self.groups)
        curves = transfers.planned(self.effort.transfer_bytes, group.ranks)
        for i, exchanges in enumerate(curves):
            # An interrupted calibration that had run out of time left the last of them.
            missing = self._say(
                sum(1 << j for j, e in enumerate(exchanges) if self._lacks(e, group))
            )
            wanted = [e for j, e in enumerate(exchanges) if missing >> j & 1]
            if wanted and group.group is not None:
                left_s = max(limit_s - (time.monotonic() - began), 0.0)
                points = transfers.measure(
                    wanted,
                    group,
                    self.watch,
                    left_s / (len(curves) - i),
                    partial(self._tell_share, len(wanted)),
                )
                if self.store is not None:
                    for point in points:
                        self.store.add(point)
            self._tell("exchanges")

    def _lacks(self, exchange: transfers.Exchange, group: Group) -> bool:
        what = transfers.identity(exchange, group)
        return self.store is not None and not self.store.holds(what)

    def _tell_share(self, exchanges: int, share: float) -> None:
        """Tell that this share of the exchanges being measured is done."""
        if time.monotonic() - self.told > _TELL_S:
            self._tell("exchanges", share * exchanges)

    def _together(
        self,
        what: dict[str, Any],
        measure: Callable[[Group, Stopwatch, int, torch.dtype], Point],
        group: Group,
    ) -> None:
        """Measure one point with all ranks of a group, unless it is in the store."""
        known = self.store is not None and self.store.holds(what)
        self._tell("overlap")
        if self._say(int(known)) == 0 and group.group is not None:
            point = measure(group, self.watch, self.effort.repeats, DTYPES[self.request.dtype])
            if self.store is not None:
                self.store.add(point)
        self._tell("overlap")

    def _say(self, command: int) -> int:
        """Return what rank 0 says."""
        said = torch.tensor([command])
        dist.broadcast(said, 0, group=self.control)
        return int(said)

    def _agree(self, failed: bool) -> bool:
        """Tell all ranks whether rank 0 failed."""
        return failed if self.control is None else bool(self._say(int(failed)))

    def _tell(self, stage: str, underway: float = 0.0) -> None:
        """Tell how far it is; `underway` points are as good as measured."""
        if self.store is None:
            return
        self.told = time.monotonic()
        progress = self.countdown.progress(stage, self.store.points, self.told, underway)
        self.store.note(progress)
        self.on_progress(progress)


def _watch(
    request: Request, on_progress: Callable[[Progress], None], ended: threading.Event
) -> None:
    """Tell how far rank 0, another process, is, from what it notes in the store."""
    last = None
    while not ended.wait(_POLL_S):
        progress = read_progress(request.store)
        if progress is not None and progress != last:
            on_progress(progress)
            last = progress


def _conditions(request: Request, device: torch.device) -> Conditions:
    found = provenance(device)
    gpu = device.type == "cuda"
    kernel = select(device, DTYPES[request.dtype], request.effort.head_dims[-1]).name
    release = f"torch {found['torch']}" if kernel == kernel_family(kernel) else kernel
    threads = torch.get_num_threads()
    return Conditions(
        device=found["device"],
        device_type=device.type,
        units=torch.cuda.get_device_properties(device).multi_processor_count if gpu else threads,
        driver=_driver() if gpu else None,
        cuda=found["cuda"],
        torch=found["torch"],
        nccl=found["nccl"],
        attention_kernel=kernel_family(kernel),
        attention_kernel_version=f"{release}, {request.dtype}",
        launch_mode=launch_mode(device.type, threads),
        ranks=request.ranks,
        ranks_per_node=ranks_here(request.ranks),
        date=found["date"],
    )


def _driver() -> str | None:
    """Return the version of the GPU's driver, where the kernel module says it."""
    try:
        with open("/proc/driver/nvidia/version") as lines:  # noqa: PTH123 - a pseudo-file
            words = lines.readline().split()
    except OSError:
        return None
    return next((word for word in words if word.count(".") >= 1 and word[0].isdigit()), None)
