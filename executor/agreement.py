"""Refuses to exchange anything before all ranks are known to hold the same plan and shapes.

Ranks that disagree would hang in the first collective, or worse, mix up tokens. So the first call
of a plan in a group gathers one row of numbers from each rank, whatever that rank thinks of its own
input; every rank then finds the same rank at fault and raises the same line.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from executor.errors import RunError
from executor.handle import Handle
from executor.transport import Transport

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_GRADIENTS = ("all-to-all", "reduce-scatter")
_COLUMNS = (
    *("fingerprint", "CP degree", "query heads", "KV heads", "head size", "dtype"),
    "way home of gradients",
)


def check_call(handle: Handle, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Return what is wrong with one rank's tensors, or None."""
    if q.dtype not in _DTYPES or {q.dtype, k.dtype, v.dtype} != {q.dtype}:
        return f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; they must be one float dtype"
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or q.shape[2] != k.shape[2]:
        shapes = ", ".join(str(list(x.shape)) for x in (q, k, v))
        return f"q, k and v of shapes {shapes} are not [tokens, heads, head_dim] of one head size"
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        return f"{k.shape[1]} KV heads do not divide {q.shape[1]} query heads"
    if q.shape[0] != handle.tokens or k.shape[0] != handle.tokens:
        return (
            f"q has {q.shape[0]} and k {k.shape[0]} tokens where the plan gives "
            f"rank {handle.rank} {handle.tokens}"
        )
    if q.device.type != handle.device.type:
        return f"q is on {q.device} where the plan was prepared for {handle.device}"
    return None


def agree(handle: Handle, transport: Transport, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Compare plans and shapes over the group, once a group and shape.

    Raises:
        RunError: names the rank that differs and in what; the same on every rank.
    """
    key = (transport.group, q.shape[1:], k.shape[1:], q.dtype)
    problem = check_call(handle, q, k, v)
    if problem is not None and handle.agreed:
        # The others are past comparing: they would not answer.
        raise RunError(f"rank {handle.rank}: {problem}")
    if key in handle.agreed:
        return
    if transport.ranks != handle.plan.cp:
        raise RunError(
            f"a plan for {handle.plan.cp} ranks cannot run on {transport.ranks}; plan again with "
            f"cp={transport.ranks}"
        )
    if transport.rank != handle.rank:
        raise RunError(
            f"rank {transport.rank} of the group holds a plan prepared for rank {handle.rank}"
        )
    dtype = _DTYPES.index(q.dtype) if q.dtype in _DTYPES else -1
    fingerprint = int(handle.plan.fingerprint, 16)
    fingerprint -= (fingerprint >> 63) << 64
    sizes = (q.shape[1], k.shape[1], q.shape[2]) if problem is None else (0, 0, 0)
    home = _GRADIENTS.index(handle.ways.gradients)
    mine = [int(problem is not None), fingerprint, handle.plan.cp, *sizes, dtype, home]
    table = _gather(mine, transport, handle.device)
    if problem is not None:
        raise RunError(f"rank {handle.rank}: {problem}")
    for rank, row in enumerate(table):
        if row[0]:
            raise RunError(f"rank {rank}'s tensors do not fit its plan; see its own message")
    for rank, row in enumerate(table):
        for name, theirs, first in zip(_COLUMNS, row[1:], table[0][1:], strict=True):
            if theirs != first:
                raise RunError(
                    f"rank {rank} has {_shown(name, theirs)}, rank 0 {_shown(name, first)}"
                )
    handle.agreed.add(key)


def _gather(row: list[int], transport: Transport, device: torch.device) -> list[list[int]]:
    mine = torch.tensor(row, dtype=torch.int64, device=device)
    rows = [torch.empty_like(mine) for _ in range(transport.ranks)]
    dist.all_gather(rows, mine, group=transport.group)
    return [[int(value) for value in one.tolist()] for one in rows]


def _shown(name: str, value: int) -> str:
    if name == "fingerprint":
        return f"the plan {value & (2**64 - 1):016x}"
    if name == "dtype":
        return str(_DTYPES[value])
    if name == "way home of gradients":
        return f"gradients by {_GRADIENTS[value]}"
    return f"{value} {name}"
