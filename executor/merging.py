"""Merges two attention outputs to the same queries over different keys, by log-sum-exp.

With the log-sum-exps a and b of the scores, the softmax over both sets of keys weighs the outputs
by exp(a - c) and exp(b - c), c = log(exp a + exp b). Worked out in float32 and rounded once. In
float32 the output is changed in place. In half precision torch has no one operator for it: two
passes over a float32 product move 14 bytes an element where one moves 6 (`executor.fused`, on a
GPU; predictions count either). On four CPU ranks in float32 merging outputs and adding dQ took
0.04 to 0.2% of the attention time (benchmarks/executor/README.md).

Shapes: q queries, t rows of a running output, Hq query heads, D head size.
"""

import torch
from torch import Tensor

from executor.fused import fused
from executor.rows import Rows, put, take, wide


def merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> Tensor:
    """Merge a part into an output and its log-sum-exp, in place.

    Args:
        out: output over some keys [q, Hq, D]; changed.
        lse: its log-sum-exp [Hq, q], float32 or wider; changed.
        part: output over the other keys [q, Hq, D].
        part_lse: its log-sum-exp [Hq, q]; finite where that of `out` is not.

    Returns:
        The new log-sum-exp [Hq, q], contiguous.
    """
    kernels = fused(out, part)
    if kernels is not None and lse.dtype is part_lse.dtype is torch.float32:
        return kernels.merge(out, lse, part, part_lse)
    together = torch.logaddexp(lse, part_lse.to(lse.dtype))
    kept, new = ((x - together).exp_().t().unsqueeze(-1) for x in (lse, part_lse))
    if out.dtype is wide(out.dtype):
        out.mul_(kept).addcmul_(part.to(out.dtype), new)
    else:
        torch.addcmul(out * kept, part, new, out=out)
    lse.copy_(together)
    return together


def merge_rows(out: Tensor, lse: Tensor, rows: Rows, part: Tensor, part_lse: Tensor) -> None:
    """Merge a part into rows of a running output [t, Hq, D] and log-sum-exp [Hq, t], in place."""
    if isinstance(rows, slice):
        merge(out[rows], lse[:, rows], part, part_lse)
        return
    running, running_lse = take(out, rows), lse.index_select(1, rows)
    merge(running, running_lse, part, part_lse)
    put(out, rows, running)
    lse.index_copy_(1, rows, running_lse)
