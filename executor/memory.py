"""Predicts the memory that one layer's attention takes on each rank, without torch.

Counted from the same routes that the run uses, at its fullest moment, the backward pass: inputs,
output and their gradients, the joined keys kept from forward, the float32 gradients of everything
received, and the float32 dQ that flash kernels accumulate. Weights, other layers and the
allocator's slack are not in it.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from executor.placement import place
from executor.routes import route
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
    for rank in range(plan.cp):
        found = route(placed, rank)
        buffer = found.received + len(found.own)
        joined = len(found.join)
        sent = max(len(found.send), found.padded)
        # Joined keys and their gradients; the buffer's in float32, and what of it travels and
        # returns; and the rank's own in float32.
        bytes_[rank] += kv_bytes * (2 * joined + wide * buffer + found.received + sent)
        bytes_[rank] += kv_bytes * wide * int(tokens[rank])
    return bytes_
