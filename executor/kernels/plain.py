"""Attention as it is written in textbooks, in any precision on any device; in float64, the oracle.

Segment by segment and up to 512 queries at a time, scores and probabilities are matrices of those
queries by the segment's keys, of at most 2^27 numbers (half a gigabyte in float32). Slow, and so
simple that it can be trusted: every other kernel is tested against it. It also serves float32 and
float64 on a GPU, which flash kernels do not.

Shapes: T query tokens, K key tokens, Hq query heads, Hkv key/value heads, D head size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from executor.kernels.segments import Pair, Segments, Triple, written, written_all

_BLOCK_QUERIES = 512
_MOST_SCORES = 2**27


@dataclass(frozen=True)
class PlainKernel:
    """Attention by matrix products.

    Attributes:
        name: as reports show it.
        dtype: precision of the work; None for that of the inputs.
    """

    name: str = "plain"
    dtype: torch.dtype | None = None

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
        dtype = self.dtype or q.dtype
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        result = torch.empty_like(q)
        lse = torch.empty(q.shape[1], q.shape[0], dtype=dtype, device=q.device)
        for queries, keys, hidden in _blocks(segments, q.shape[1]):
            scores = _scores(q[queries], k[keys], hidden, scale)
            lse[:, queries] = torch.logsumexp(scores, dim=-1).flatten(0, 1)
            values = torch.einsum("hgqk,khd->qhgd", torch.softmax(scores, dim=-1), v[keys])
            result[queries] = values.flatten(1, 2)
        return written(result, out), lse

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
        dtype = self.dtype or dout.dtype
        dout, q, k, v, out, lse = (x.to(dtype) for x in (dout, *qkv, *result))
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        heads = k.shape[1]
        for queries, keys, hidden in _blocks(segments, q.shape[1]):
            scores = _scores(q[queries], k[keys], hidden, scale)
            p = torch.exp(scores - lse[:, queries].reshape(heads, -1, dout[queries].shape[0], 1))
            grouped = _grouped(dout[queries], heads)
            dv[keys] += torch.einsum("hgqk,qhgd->khd", p, grouped)
            dp = torch.einsum("qhgd,khd->hgqk", grouped, v[keys])
            delta = _grouped(dout[queries] * out[queries], heads).sum(-1)
            ds = p * (dp - delta.permute(1, 2, 0).unsqueeze(-1)) * scale
            dq[queries] = torch.einsum("hgqk,khd->qhgd", ds, k[keys]).flatten(1, 2)
            dk[keys] += torch.einsum("hgqk,qhgd->khd", ds, _grouped(q[queries], heads))
        return written_all((dq, dk, dv), into)


ORACLE = PlainKernel(name="oracle", dtype=torch.float64)


def _blocks(segments: Segments, heads: int) -> Iterator[tuple[slice, slice, int | None]]:
    """Yield queries, the keys they may see, and the key up to which the first of them sees."""
    q_end = k_begin = 0
    for q_len, k_len in zip(segments.q_lens, segments.k_lens, strict=True):
        q_begin, q_end = q_end, q_end + q_len
        block = min(_BLOCK_QUERIES, max(1, _MOST_SCORES // (heads * max(k_len, 1))))
        for first in range(0, q_len, block):
            last = min(first + block, q_len)
            seen = k_len - q_len + last if segments.causal else k_len
            yield (
                slice(q_begin + first, q_begin + last),
                slice(k_begin, k_begin + seen),
                k_len - q_len + first if segments.causal else None,
            )
        k_begin += k_len


def _scores(q: Tensor, k: Tensor, first: int | None, scale: float) -> Tensor:
    """Return the scores [Hkv, Hq / Hkv, queries, keys]; query i sees keys up to first + i."""
    scores = torch.einsum("qhgd,khd->hgqk", _grouped(q, k.shape[1]), k) * scale
    if first is not None:
        rows = torch.arange(q.shape[0], device=q.device).unsqueeze(1)
        hidden = torch.arange(k.shape[0], device=q.device) > rows + first
        scores.masked_fill_(hidden, float("-inf"))
    return scores


def _grouped(x: Tensor, heads: int) -> Tensor:
    """View [n, Hq, D] as [n, Hkv, Hq / Hkv, D]."""
    return x.view(x.shape[0], heads, -1, x.shape[-1])
