"""Predicts the memory that one layer's attention takes on each rank, without torch.

Counted from the same routes that the run uses, at its fullest moment, the backward pass: inputs,
output and their gradients, the joined keys kept from forward and their gradients, those that
travel, in float32 where torch's operators sum them (one-pass kernels need no such copy), and the
float32 dQ that flash kernels accumulate; where the plan overlaps, the second log-sum-exp and dQ of
the rows that wait (forward has their second output, but no gradients). Where query heads share KV
heads, a kernel's backward in half precision holds dK and dV of every query head before it adds them
up, as flash-attn 2 and torch do (flash-attn 3 holds those of every KV head in float32: less beyond
two query heads a KV head).
Where KV travels in parts, the last part's waiting call has those of its own heads only, beside what
travels of the parts before; and copies of its heads' output and its gradient, which torch's kernel
makes. What forward packs is less than dK and dV, which are not there then.
Weights, other layers and the allocator's slack are not in it. Not held against a GPU yet.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from executor.landing import Landing, landing
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
    shared = model.q_heads > model.kv_heads and model.dtype_bytes < _FLOAT32_BYTES
    scratch = 2 * q_bytes if shared else 0  # of a key in a kernel's backward
    tokens, parts = plan.rank_tokens.astype(np.int64), plan.chunks(model.kv_heads)
    # q, out, dout and dq; k, v, dk and dv; the log-sum-exp; dQ as kernels accumulate it.
    bytes_ = tokens * (4 * q_bytes + 2 * kv_bytes + 4 * model.q_heads + wide * q_bytes)
    if plan.exchange is Exchange.RING:
        # KV held and coming, dKV held, coming and this step's; the output merged in float32.
        most = placed.most_tokens
        passed = most * (kv_bytes * (2 + 2 * wide + 1) + scratch)
        return bytes_ + passed + tokens * wide * q_bytes
    if splits_calls(plan):
        bytes_ += plan.waiting_tokens[1] * (q_bytes + 4 * model.q_heads)
    count = _landed if plan.exchange in _LANDS or padded_rows(placed) == 0 else _gathered
    for rank in range(plan.cp):
        rows, keys = count(placed, rank, wide)
        own = calls(placed, rank).in_place
        # The waiting call's backward comes first, when nothing of its part has come home yet.
        waiting_bytes = keys * (2 * kv_bytes + scratch // parts)
        if parts > 1:
            waiting_bytes += (rows - 2 * keys) * kv_bytes * (parts - 1) // parts
            waiting_bytes += int(plan.waiting_tokens[1][rank]) * 2 * q_bytes // parts
        bytes_[rank] += max(rows * kv_bytes + own * scratch, waiting_bytes)
    return bytes_


_FLOAT32_BYTES = 4
_LANDS = (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL)


def _landed(placed: Placement, rank: int, wide: int) -> tuple[int, int]:
    """Return rows of KV's size beside k, v and their gradients where keys land in place, and keys.

    Keys are the waiting call's.
    """
    found = landing(placed, rank)
    if placed.plan.bundled and found.hops:
        return _bundled(found, wide)
    back = sum(m.rows for hop in found.hops for m in hop.sends)
    passed = sum(m.rows for m in found.hops[0].recvs) if len(found.hops) > 1 else 0
    # The landing and its keys' gradients; what comes back, and its sums in float32, K's or V's at a
    # time; what is passed on, likewise.
    rows = 2 * found.keys + found.transit + back + (back + 1) // 2 * wide + passed * (1 + wide)
    return rows, found.keys


def _bundled(found: Landing, wide: int) -> tuple[int, int]:
    """Return the same where messages are bundled."""
    sent, received = (
        sum(m.rows for messages in ways for m in messages)
        for ways in ([hop.sends for hop in found.hops], [hop.recvs for hop in found.hops])
    )
    passed = sum(m.rows for m in found.hops[0].recvs) if len(found.hops) > 1 else 0
    # Keys and their gradients; what travels home and what comes; and of either the sums in float32,
    # K's or V's at a time.
    rows = 2 * found.keys + received + sent + (max(sent, passed) + 1) // 2 * wide
    return rows, found.keys


def _gathered(placed: Placement, rank: int, wide: int) -> tuple[int, int]:
    """Return the same where keys are gathered."""
    found = route(placed, rank, calls(placed, rank))
    received = placed.plan.cp * found.padded
    # Joined keys and their gradients; own gradients in float32; and either the buffer's in float32,
    # K's or V's at a time, or what of them travels and returns.
    buffer = (received + len(found.own)) * wide
    keys = len(found.join)
    return 2 * keys + len(found.own) * wide + max(buffer, 2 * received), keys
