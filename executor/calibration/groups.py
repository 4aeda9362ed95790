"""Forms the groups of ranks whose exchanges are measured.

Within the first node groups of 2, 4, 8 ... ranks and of all of its ranks; across nodes one of a
rank a node and one of all. Ranks agree over gloo, also on GPUs: a rank that waits while another
measures alone must not keep its GPU busy with waiting.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from executor.calibration.request import Request
from executor.calibration.transfers import Group
from executor.device import group_options, ranks_here
from executor.errors import RunError

LOCAL_S = 3.0
"""Seconds after which no further copy is begun."""


def join(request: Request, device: torch.device) -> dist.ProcessGroup | None:
    """Join the group of the environment; returns the group that ranks agree over, on the host."""
    limit = timedelta(seconds=request.timeout_s)
    # Others wait while rank 0 measures alone.
    timeout = timedelta(seconds=request.timeout_s + 2 * request.effort.attention_s + LOCAL_S)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with _silent():
            store, rank, ranks = next(rendezvous("env://", timeout=limit))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("flashcp", store),  # type: ignore[attr-defined]
            rank=rank,
            world_size=ranks,
            timeout=timeout,
            pg_options=group_options(device, timeout),
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"rank {rank}: the group of {ranks} did not form within {request.timeout_s:g} s; "
            "see that every rank was started and reaches "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        ) from error
    if ranks != request.ranks:
        raise RunError(f"asked for {request.ranks} ranks in a group of {ranks}; leave out --nproc")
    return dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD


@contextmanager
def _silent() -> Iterator[None]:
    """Keep from the error stream what torch's C++ says while it looks for the others: stacks."""
    sys.stderr.flush()
    ours = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(ours, 2)
        os.close(ours)
        os.close(nowhere)


def groups_of(ranks: int, device: torch.device) -> list[Group]:
    """Return the groups to measure, the largest last; every rank makes all of them.

    Within the first node groups of 2, 4, 8 ... ranks and of all; across nodes one of a rank a node
    and one of all ranks. Made as a run makes its own, so that overlap is measured as it will be.
    """
    here = ranks_here(ranks)
    sizes = sorted({2**power for power in range(1, here.bit_length()) if 2**power <= here} | {here})
    members = [(list(range(size)), size) for size in sizes if size > 1]
    if here < ranks:
        if here > 1:
            members.append((list(range(0, ranks, here)), 1))
        members.append((list(range(ranks)), here))
    cuda = device.type == "cuda"
    groups = []
    for chosen, per_node in members:
        group = dist.new_group(chosen, pg_options=group_options(device))
        control = dist.new_group(chosen, backend="gloo") if cuda else group
        mine = dist.get_rank() in chosen
        groups.append(
            Group(len(chosen), per_node, group if mine else None, control if mine else None)
        )
    return groups
