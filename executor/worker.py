"""One rank's process: joins the group, runs every plan of a job, gathers what was found on rank 0.

Started by torch's elastic launcher as `python -m executor.worker FOLDER`, where the folder holds
the job and takes the results and, should something go wrong, one file a rank that says what; or
called inside torchrun by `flashcp run` itself.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from executor.device import device_memory, group_options, local_device, provenance
from executor.errors import RunError
from executor.inputs import DTYPES
from executor.job import Job, load_job
from executor.measure import Rank, kernel_name, run_plan
from executor.memory import memory_bytes
from executor.progress import Progress, end_with, group_timeout
from executor.transport import Transport

RESULTS = "results.json"
LAUNCHER = "launcher"


def main(folder: Path) -> None:
    """Run the job in `folder` as one rank of the group that the environment describes."""
    rank = int(os.environ["RANK"])
    end_with(int((folder / LAUNCHER).read_text()))
    # What libraries print belongs to nobody's report; the launcher shows it if all else is silent.
    with (folder / output_name(rank)).open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)

    def fault(line: str, kind: str) -> None:
        document = {"rank": rank, "line": line, "kind": kind, "when": time.time()}
        (folder / f"fault-{rank}.json").write_text(json.dumps(document))

    try:
        results = run_job(load_job(folder), on_hang=lambda line: fault(line, "hang"))
    # Whatever it is, the launcher must be able to say which rank it was and why.
    except Exception as error:  # noqa: BLE001
        fault(cause(error), "refused" if isinstance(error, RunError) else "raised")
        # Leaves the others time to be told by the launcher, not by a broken connection.
        os._exit(1)
    if results is not None:
        (folder / RESULTS).write_text(json.dumps(results))


def run_job_in_torchrun(job: Job) -> dict[str, Any] | None:
    """Run a job as one rank of a group that torchrun started; see `run_job`.

    Raises:
        RunError: names this rank and what went wrong on it.
    """

    def hung(line: str) -> None:
        sys.stderr.write(f"flashcp: {line}\n")
        sys.stderr.flush()

    end_with(os.getppid())
    try:
        return run_job(job, on_hang=hung)
    except RunError:
        raise
    # A traceback from every rank would bury the one line that matters.
    except Exception as error:
        raise RunError(f"rank {os.environ['RANK']}: {cause(error)}") from error


def output_name(rank: int) -> str:
    """Return the name of the file that takes what a rank prints."""
    return f"output-{rank}.log"


def cause(error: BaseException) -> str:
    """Return what went wrong in one line."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else "no message"
    if isinstance(error, RunError):
        return line
    if isinstance(error, torch.OutOfMemoryError):
        return f"ran out of GPU memory: {line}"
    if found := re.search(r"can't allocate memory: you tried to allocate (\d+) bytes", line):
        return f"ran out of memory, {found[1]} bytes more were refused; end what else runs here"
    return f"{type(error).__name__}: {line}"


def run_job(job: Job, *, on_hang: Callable[[str], None]) -> dict[str, Any] | None:
    """Join the group of the environment, run the job, leave the group.

    Returns:
        On rank 0 the results: `environment`, and under `plans` by name each rank's rows; else None.

    Raises:
        RunError: the job is for another number of ranks, or does not fit the device's memory.
    """
    device = local_device(job.options.device)
    store, number, ranks = next(rendezvous("env://"))
    if ranks != job.cp:
        raise RunError(
            f"a plan for {job.cp} ranks cannot run on {ranks}; start {job.cp} ranks or plan again "
            f"with --cp {ranks}"
        )
    progress = Progress(
        store.clone(), number, ranks, timeout_s=job.options.timeout_s, on_hang=on_hang
    )
    timeout = group_timeout(job.options.timeout_s)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("flashcp", store),  # type: ignore[attr-defined]
        rank=number,
        world_size=ranks,
        timeout=timeout,
        pg_options=group_options(device, timeout),
        device_id=device if device.type == "cuda" else None,
    )
    try:
        rank = Rank(Transport(), device, progress)
        check_memory(job, number, device)
        rank.barrier()
        rows = {
            name: run_plan(name, plan, job, rank)
            for name, plan in zip(job.names, job.plans, strict=True)
        }
        progress.at("gathering results")
        with progress.waiting():
            everything: list[Any] = [None] * ranks
            dist.all_gather_object(everything, rows)
            rank.barrier()
    finally:
        progress.end()
    environment = provenance(device)
    dist.destroy_process_group()
    if number != 0:
        return None
    return {
        "environment": {
            **environment,
            "attention_kernel": kernel_name(job, device, DTYPES[job.options.dtype]),
        },
        "plans": {name: [one[name] for one in everything] for name in job.names},
    }


def check_memory(job: Job, rank: int, device: torch.device) -> None:
    """Refuse a plan whose tensors do not fit the device.

    Raises:
        RunError: with the estimate and what is free.
    """
    free = device_memory(device)
    for name, plan in zip(job.names, job.plans, strict=True):
        # The whole pack's inputs are drawn on every rank, beside what the plan takes.
        drawn = plan.context_tokens * (
            2 * job.model.q_heads * job.model.head_dim * job.model.dtype_bytes
            + job.model.kv_bytes_per_token
        )
        needed = int(memory_bytes(plan, job.model)[rank]) + drawn
        if free is not None and needed > free:
            raise RunError(
                f"{name} needs about {needed / 2**30:.1f} GiB on rank {rank} where "
                f"{free / 2**30:.1f} GiB of {device} are free; take fewer heads or a smaller window"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
