"""Refuses to exchange anything before all ranks are known to hold the same plan and shapes.

Ranks that disagree would hang in the first collective, or worse, mix up tokens. So the first call
of a plan in a group gathers one row of numbers from each rank, whatever that rank thinks of its own
input; every rank then finds the same rank at fault and raises the same line. Kernels are chosen,
tried and compiled before, since a rank that fails at it would leave the others waiting as well.
"""

import struct

import torch
import torch.distributed as dist
from torch import Tensor

from executor.errors import RunError
from executor.fused import find
from executor.handle import Handle
from executor.kernels import Kernel, select
from executor.kernels.segments import Triple
from executor.transfers import Pattern
from executor.transport import COLLECTIVES, Transport

_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
_GRADIENTS = ("all-to-all", "reduce-scatter")
_COLUMNS = (
    *("fingerprint", "CP degree", "query heads", "KV heads", "head size", "dtype"),
    *("way home of gradients", "scale", "backward"),
)
_NAME_NUMBERS = 8  # that hold a kernel's name, of which 64 bytes are compared
_NAME = struct.Struct(f"<{_NAME_NUMBERS}q")


def check_call(handle: Handle, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """Return what is wrong with one rank's tensors, or None."""
    if q.dtype not in _DTYPES or {q.dtype, k.dtype, v.dtype} != {q.dtype}:
        return (
            f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}; they must be one float dtype, "
            "bfloat16, float16, float32 or float64"
        )
    if q.ndim != 3 or k.ndim != 3 or k.shape != v.shape or q.shape[2] != k.shape[2]:
        shapes = ", ".join(str(list(x.shape)) for x in (q, k, v))
        return f"q, k and v of shapes {shapes} are not [tokens, heads, head_dim] of one head size"
    if q.shape[2] == 0:
        return "q, k and v have head size 0"
    if q.shape[1] == 0 or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        return f"{k.shape[1]} KV heads do not divide {q.shape[1]} query heads"
    if q.shape[0] != handle.tokens or k.shape[0] != handle.tokens:
        return (
            f"q has {q.shape[0]} and k {k.shape[0]} tokens where the plan gives "
            f"rank {handle.rank} {handle.tokens}"
        )
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.device != handle.device:
            return f"{name} is on {x.device} where the plan was prepared for {handle.device}"
    return None


def agree(handle: Handle, transport: Transport, qkv: Triple, scale: float) -> Kernel:
    """Choose the kernel, and compare plans, shapes, scales and kernels, once a group and shape.

    Returns:
        The attention kernel.

    Raises:
        RunError: names the rank that differs and in what; on every rank, in the first call.
        Exception: whatever kept this rank from trying its kernels, as a lack of memory.
    """
    q, k, _ = qkv
    key = (transport.group, q.shape[1:], k.shape[1:], q.dtype, scale)
    if key in handle.agreed:
        return _ready(handle, transport, qkv)  # the others are past comparing
    try:
        kernel = _ready(handle, transport, qkv)
    except Exception:
        # Whatever it is, the others have to know that this rank will not come.
        _gather([0] * (1 + len(_COLUMNS) + _NAME_NUMBERS), transport, handle.device)
        raise
    _compare(_gather(_row(handle, qkv, scale, kernel), transport, handle.device))
    handle.agreed.add(key)
    return kernel


def _ready(handle: Handle, transport: Transport, qkv: Triple) -> Kernel:
    """Return the kernel, once all that this rank can check by itself fits.

    Raises:
        RunError: names this rank and what does not fit.
        torch.OutOfMemoryError: there is no room to try kernels.
    """
    q, k, _ = qkv
    problem = _check_group(handle, transport) or check_call(handle, *qkv)
    if problem is None:
        find(q.device)  # compiles what moves rows
        try:
            return select(q.device, q.dtype, q.shape[2], q.shape[1] // k.shape[1])
        except RunError as error:
            problem = str(error)
    raise RunError(f"rank {transport.rank}: {problem}")


def _row(handle: Handle, qkv: Triple, scale: float, kernel: Kernel) -> list[int]:
    """Return what a rank that is ready tells: that it is, `_COLUMNS`, and its kernel's name."""
    q, k, _ = qkv
    fingerprint = int(handle.plan.fingerprint, 16)
    return [
        1,
        fingerprint - ((fingerprint >> 63) << 64),
        handle.plan.cp,
        *(q.shape[1], k.shape[1], q.shape[2]),
        _DTYPES.index(q.dtype),
        _GRADIENTS.index(handle.ways.gradients),
        struct.unpack("<q", struct.pack("<d", scale))[0],
        int(torch.is_grad_enabled() and any(x.requires_grad for x in qkv)),
        *_NAME.unpack(kernel.name.encode()[: _NAME.size].ljust(_NAME.size, b"\0")),
    ]


def _compare(table: list[list[int]]) -> None:
    """Raise what differs between the ranks' rows, if anything does."""
    for rank, (ready, *_) in enumerate(table):
        if not ready:
            raise RunError(f"rank {rank} cannot run this; see its own message")
    first = table[0]
    for rank, row in enumerate(table):
        for name, theirs, ours in zip(_COLUMNS, row[1:], first[1:], strict=False):
            if theirs != ours:
                raise RunError(
                    f"rank {rank} has {_shown(name, theirs)}, rank 0 {_shown(name, ours)}"
                )
        if row != first:
            raise RunError(
                f"rank {rank} attends by {_kernel_name(row)}, rank 0 by {_kernel_name(first)}; "
                "give both the same releases"
            )


def _kernel_name(row: list[int]) -> str:
    return _NAME.pack(*row[1 + len(_COLUMNS) :]).rstrip(b"\0").decode(errors="replace")


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
