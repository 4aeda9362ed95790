"""Refuses to exchange anything before all ranks are known to hold the same plan and shapes.

Ranks that disagree would hang in the first collective, or worse, mix up tokens. So the first call
of a plan in a group gathers one row of numbers from each rank, whatever that rank thinks of its own
input; every rank then finds the same rank at fault and raises the same line.
"""

import struct

import torch
import torch.distributed as dist
from torch import Tensor

from executor.errors import RunError
from executor.handle import Handle
from executor.kernels.segments import Triple
from executor.transfers import Pattern
from executor.transport import COLLECTIVES, Transport

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_GRADIENTS = ("all-to-all", "reduce-scatter")
_COLUMNS = (
    *("fingerprint", "CP degree", "query heads", "KV heads", "head size", "dtype"),
    *("way home of gradients", "scale", "backward"),
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
    if q.device != handle.device:
        return f"q is on {q.device} where the plan was prepared for {handle.device}"
    return None


def agree(handle: Handle, transport: Transport, qkv: Triple, scale: float) -> None:
    """Compare plans, shapes and scales over the group, once a group and shape.

    Raises:
        RunError: names the rank that differs and in what; on every rank, in the first call.
    """
    q, k, v = qkv
    key = (transport.group, q.shape[1:], k.shape[1:], q.dtype, scale)
    problem = _check_group(handle, transport) or check_call(handle, q, k, v)
    if key in handle.agreed:
        if problem is not None:
            # The others are past comparing: they would not answer.
            raise RunError(f"rank {transport.rank}: {problem}")
        return
    dtype = _DTYPES.index(q.dtype) if q.dtype in _DTYPES else -1
    fingerprint = int(handle.plan.fingerprint, 16)
    fingerprint -= (fingerprint >> 63) << 64
    sizes = (q.shape[1], k.shape[1], q.shape[2]) if problem is None else (0, 0, 0)
    ways = _GRADIENTS.index(handle.ways.gradients), struct.unpack("<q", struct.pack("<d", scale))[0]
    backward = int(torch.is_grad_enabled() and any(x.requires_grad for x in qkv))
    mine = [int(problem is not None), fingerprint, handle.plan.cp, *sizes, dtype, *ways, backward]
    table = _gather(mine, transport, handle.device)
    if problem is not None:
        raise RunError(f"rank {transport.rank}: {problem}")
    for rank, row in enumerate(table):
        if row[0]:
            raise RunError(f"rank {rank}'s plan or tensors do not fit; see its own message")
    for rank, row in enumerate(table):
        for name, theirs, first in zip(_COLUMNS, row[1:], table[0][1:], strict=True):
            if theirs != first:
                raise RunError(
                    f"rank {rank} has {_shown(name, theirs)}, rank 0 {_shown(name, first)}"
                )
    handle.agreed.add(key)


def _check_group(handle: Handle, transport: Transport) -> str | None:
    """Return in what the plan does not fit the group, or None."""
    if transport.group is None and handle.plan.cp > 1 and not dist.is_initialized():
        return (
            f"a plan for {handle.plan.cp} ranks needs a process group and there is none; call "
            "torch.distributed.init_process_group, or plan with cp=1"
        )
    if transport.ranks != handle.plan.cp:
        return (
            f"a plan for {handle.plan.cp} ranks cannot run on {transport.ranks}; plan again with "
            f"cp={transport.ranks}"
        )
    if transport.rank != handle.rank:
        return f"the plan is prepared for rank {handle.rank} of the group"
    return None


def _gather(row: list[int], transport: Transport, device: torch.device) -> list[list[int]]:
    if transport.ranks == 1:
        return [row]
    mine = torch.tensor(row, dtype=torch.int64).to(device)
    rows = mine.new_empty(transport.ranks * len(row))
    COLLECTIVES[Pattern.ALL_GATHER](rows, mine, group=transport.group)
    found: list[list[int]] = rows.view(-1, len(row)).tolist()  # one copy, for which the host waits
    return found


def _shown(name: str, value: int) -> str:
    if name == "fingerprint":
        return f"the plan {value & (2**64 - 1):016x}"
    if name == "dtype":
        return str(_DTYPES[value])
    if name == "way home of gradients":
        return f"gradients by {_GRADIENTS[value]}"
    if name == "backward":
        return f"inputs that need {'gradients' if value else 'no gradient'}"
    if name == "scale":
        return f"the scale {struct.unpack('<d', struct.pack('<q', value))[0]:g}"
    return f"{value} {name}"
