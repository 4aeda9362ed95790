"""Predicts the memory that one layer's attention takes on each rank, without torch.

Counted from the same routes that the run uses, at its fullest moment, the backward pass: inputs,
output and their gradients, the joined keys kept from forward and their gradients, those that
travel, in float32 where they are summed, and the float32 dQ that flash kernels accumulate; where
the plan overlaps, the second log-sum-exp and dQ of the rows that wait (forward has their second
output, but no gradients). Weights, other layers and the allocator's slack are not in it, nor what
a kernel's backward holds for itself where query heads share KV heads: of the keys of one call
flash-attn 2 and torch keep dK and dV of every query head (2 Hq D elements a key), flash-attn 3
those of every KV head in float32.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from executor.landing import landing
from executor.placement import Placement, place, splits_calls
from executor.routes import padded_rows, route
from executor.waiting import calls
from flashcp.exchange import Exchange

if TYPE_CHECKING:
    from costmodel.model_shape import ModelShape
    from flashcp.plans import Plan


def memory_bytes(plan: "Plan", model: "ModelShape") -> NDArray[np.int64]:
    """Return the bytes that forward and backward of one layer's attention take, int64 [cp].

    Args:
        plan: the plan.
        model: heads, head size and dtype.
    """
    placed = place(plan)
    q_bytes = model.q_heads * model.head_dim * model.dtype_bytes
    kv_bytes = model.kv_bytes_per_token
    wide = max(4 // model.dtype_bytes, 1)
    tokens = plan.rank_tokens.astype(np.int64)
    # q, out, dout and dq; k, v, dk and dv; the log-sum-exp; dQ as kernels accumulate it.
    bytes_ = tokens * (4 * q_bytes + 2 * kv_bytes + 4 * model.q_heads + wide * q_bytes)
    if plan.exchange is Exchange.RING:
        # KV held and coming, dKV held, coming and this step's; the output merged in float32.
        most = placed.most_tokens
        return bytes_ + most * kv_bytes * (2 + 2 * wide + 1) + tokens * wide * q_bytes
    if splits_calls(plan):
        bytes_ += plan.waiting_tokens[1] * (q_bytes + 4 * model.q_heads)
    count = _landed if plan.exchange in _LANDS or padded_rows(placed) == 0 else _gathered
    rows = np.array([count(placed, rank, wide) for rank in range(plan.cp)], dtype=np.int64)
    return bytes_ + rows * kv_bytes


_LANDS = (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL)


def _landed(placed: Placement, rank: int, wide: int) -> int:
    """Return rows of KV's size beside k, v and their gradients where keys land in place."""
    found = landing(placed, rank)
    back = sum(m.stop - m.start for hop in found.hops for m in hop.sends)
    passed = sum(m.stop - m.start for m in found.hops[0].recvs) if len(found.hops) > 1 else 0
    # The landing and its keys' gradients; what comes back, and its sums in float32, K's or V's at a
    # time; what is passed on, likewise.
    return 2 * found.keys + found.transit + back + (back + 1) // 2 * wide + passed * (1 + wide)


def _gathered(placed: Placement, rank: int, wide: int) -> int:
    """Return rows of KV's size beside k, v and their gradients where keys are gathered."""
    found = route(placed, rank, calls(placed, rank))
    received = placed.plan.cp * found.padded
    # Joined keys and their gradients; own gradients in float32; and either the buffer's in float32,
    # K's or V's at a time, or what of them travels and returns.
    buffer = (received + len(found.own)) * wide
    return 2 * len(found.join) + len(found.own) * wide + max(buffer, 2 * received)
