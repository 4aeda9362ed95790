"""Does ahead of the first training step what its first attention would otherwise wait for.

Attention kernels are tried against the oracle and compiled, which takes flash-attn 4 and Triton
seconds; NCCL connects every pair of ranks when they first exchange. All of it happens by itself in
any first call of `attention`; so tiny plans are run, of every exchange that compiles something.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from executor.attend import attention, group_of
from executor.handle import prepare
from executor.kernels import select
from executor.transport import Transport
from flashcp.exchange import Exchange
from flashcp.plans import Plan
from flashcp.strategies import shard

_PIECE, _TURNS = 16, 3  # tokens of a shard; shards of a document on a rank


def warm_up(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    group: dist.ProcessGroup | DeviceMesh | None = None,
) -> str:
    """Find, compile and connect what `attention` needs; every rank of the group calls it, once.

    Args:
        device: where tensors will be.
        dtype: theirs.
        q_heads: query heads that attention will see on a rank.
        kv_heads: key/value heads, which divide them.
        head_dim: head size.
        group: as of `attention`.

    Returns:
        The attention kernel's name and release.

    Raises:
        RunError: as of `attention`; in any case on every rank.
    """
    transport = Transport(group_of(group))
    for plan in _plans(transport.ranks):
        handle = prepare(plan, transport.rank, device)
        with torch.enable_grad():
            q, k, v = (
                torch.zeros(
                    (handle.tokens, heads, head_dim),
                    dtype=dtype,
                    device=handle.device,
                    requires_grad=True,
                )
                for heads in (q_heads, kv_heads, kv_heads)
            )
            out = attention(q, k, v, handle, transport)
        torch.autograd.grad(out, (q, k, v), torch.zeros_like(out))
    return select(handle.device, dtype, head_dim, q_heads // kv_heads).name


def _plans(cp: int) -> Iterator[Plan]:
    """Yield plans of two documents over `cp` ranks: gathered, in pieces, and bundled."""
    lengths = np.array([_PIECE * _TURNS * cp] * 2, dtype=np.int32)
    yield shard(lengths, cp, "per-doc")
    if cp == 1:
        return
    # Dealt out in turns, so that rows of one document are needed in several places of a rank.
    rank, document, turn = (
        x.ravel().astype(np.int32)
        for x in np.meshgrid(range(cp), range(2), range(_TURNS), indexing="ij")
    )
    start = (turn * cp + rank) * _PIECE
    needed = Plan(
        lengths=lengths,
        cp=cp,
        document=document,
        rank=rank,
        start=start,
        stop=start + _PIECE,
        exchange=Exchange.ALL_TO_ALL_NEEDED,
        strategy="warm-up",
        overlap=True,
    )
    yield needed
    yield replace(needed, bundled=True)
