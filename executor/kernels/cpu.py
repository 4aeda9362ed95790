"""torch's flash attention for CPUs, segment by segment.

That operator masks causally from the first key on, so a segment with a prefix is two calls, the
prefix without a mask and the diagonal with one, merged by log-sum-exp; no mask is ever built. Given
the merged output and log-sum-exp, the operator's backward is exact for each part by itself. It
wants as many key heads as query heads: KV heads therefore go in as batch entries, the query heads
that share one as its heads, and the keys are repeated by a stride of zero rather than by copies.
In half precision the two parts are worked out in float32: their dQ nearly cancel, as the softmax's
gradient sums to zero, and rounding each cost up to 2.5 times the error of one call.

Shapes: T query tokens, K key tokens, Hq query heads, Hkv key/value heads, G = Hq / Hkv, D head
size.
"""

import torch
from torch import Tensor

from executor.kernels.segments import Pair, Segments, Triple

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default


class CpuKernel:
    """Flash attention on a CPU: float64, float32, bfloat16 and float16."""

    name = "torch-flash-cpu"

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        segments: Segments,
        scale: float,
        *,
        out: Tensor | None = None,
    ) -> Pair:
        """Attend; see `executor.kernels.Kernel`."""
        out = torch.empty_like(q) if out is None else out
        lse = q.new_empty((q.shape[1], q.shape[0]), dtype=_wide(q.dtype))
        heads = k.shape[1]
        for queries, keys, diagonal in _parts(segments):
            dtype = _working(q.dtype, keys, diagonal)
            part = _grouped(q[queries].to(dtype), heads)
            merged: Pair | None = None
            for where, causal in ((keys, False), (diagonal, True)):
                if where.start == where.stop:
                    continue
                keys_values = (_spread(x[where].to(dtype), part) for x in (k, v))
                new = _forward(part, *keys_values, 0.0, causal, scale=scale)
                merged = new if merged is None else _merged(merged, new)
            assert merged is not None  # noqa: S101 - every segment has keys
            _grouped(out[queries], heads).copy_(merged[0])
            lse[:, queries] = merged[1].flatten(0, 1)
        return out, lse

    def backward(
        self,
        dout: Tensor,
        qkv: Triple,
        result: Pair,
        segments: Segments,
        scale: float,
        *,
        into: Triple | None = None,
    ) -> Triple:
        """Return the gradients; see `executor.kernels.Kernel`."""
        (q, k, v), (out, lse) = qkv, result
        dq, dk, dv = into or (torch.empty_like(q), torch.empty_like(k), torch.empty_like(v))
        heads = k.shape[1]
        for queries, keys, diagonal in _parts(segments):
            dtype = _working(q.dtype, keys, diagonal)
            part = _grouped(q[queries].to(dtype), heads)
            given = [
                _grouped(dout[queries].to(dtype), heads),
                _grouped(out[queries].to(dtype), heads),
                lse[:, queries].reshape(heads, -1, part.shape[2]),
            ]
            total: Tensor | None = None
            for where, causal in ((keys, False), (diagonal, True)):
                if where.start == where.stop:
                    continue
                spread = (_spread(x[where].to(dtype), part) for x in (k, v))
                dpart, dkeys, dvalues = _backward(
                    given[0], part, *spread, given[1], given[2], 0.0, causal, scale=scale
                )
                dk[where] = dkeys.sum(1, dtype=_wide(k.dtype)).transpose(0, 1)
                dv[where] = dvalues.sum(1, dtype=_wide(v.dtype)).transpose(0, 1)
                total = dpart if total is None else total.to(_wide(q.dtype)) + dpart
            assert total is not None  # noqa: S101 - every segment has keys
            _grouped(dq[queries], heads).copy_(total)
        return dq, dk, dv


def _parts(segments: Segments) -> "list[tuple[slice, slice, slice]]":
    """List each segment's queries, the keys that all of them see, and its diagonal's keys."""
    parts = []
    q_end = k_end = 0
    for q_len, k_len in zip(segments.q_lens, segments.k_lens, strict=True):
        q_begin, q_end = q_end, q_end + q_len
        k_begin, k_end = k_end, k_end + k_len
        seen = k_end - q_len if segments.causal else k_end
        parts.append((slice(q_begin, q_end), slice(k_begin, seen), slice(seen, k_end)))
    return parts


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _working(dtype: torch.dtype, keys: slice, diagonal: slice) -> torch.dtype:
    """Return the precision to work in: wide where two parts of one gradient may cancel out."""
    return _wide(dtype) if keys.start < keys.stop and diagonal.start < diagonal.stop else dtype


def _grouped(x: Tensor, heads: int) -> Tensor:
    """View [n, Hq, D] as [Hkv, G, n, D]."""
    return x.view(x.shape[0], heads, -1, x.shape[-1]).permute(1, 2, 0, 3)


def _spread(x: Tensor, like: Tensor) -> Tensor:
    """View [n, Hkv, D] as [Hkv, G, n, D], with the same keys for all of a group."""
    return x.transpose(0, 1).unsqueeze(1).expand(-1, like.shape[1], -1, -1)


def _merged(a: Pair, b: Pair) -> Pair:
    lse = torch.logaddexp(a[1], b[1])
    out: Tensor = a[0] * (a[1] - lse).exp().unsqueeze(-1)
    return out + b[0] * (b[1] - lse).exp().unsqueeze(-1), lse
