"""Rows of a tensor: a slice where they are contiguous, so that taking them copies nothing."""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows: TypeAlias = slice | Tensor


def rows(indices: NDArray[np.int64], device: torch.device) -> Rows:
    """Return `indices`, [n], as a slice where they are n neighbours in order, else as a tensor."""
    if indices.size == 0:
        return slice(0, 0)
    first, last = int(indices[0]), int(indices[-1])
    if last - first + 1 == indices.size and bool(np.all(np.diff(indices) == 1)):
        return slice(first, last + 1)
    return torch.from_numpy(np.ascontiguousarray(indices)).to(device)


def take(tensor: Tensor, which: Rows) -> Tensor:
    """Return the rows [n, ...] of a tensor [m, ...]: a view of a slice, else a copy."""
    return tensor[which] if isinstance(which, slice) else tensor.index_select(0, which)


def take_into(target: Tensor, tensor: Tensor, which: Rows) -> None:
    """Copy rows of a tensor [m, ...] into `target`, [n, ...], which may be strided."""
    if isinstance(which, slice):
        target.copy_(tensor[which])
    else:
        torch.index_select(tensor, 0, which, out=target)


def add(target: Tensor, which: Rows, values: Tensor) -> None:
    """Add `values`, [n, ...], to rows of `target`, in the precision of `target`.

    A row may be named more than once; sums are then in the order of `values` on a CPU.
    """
    if isinstance(which, slice):
        target[which] += values
    else:
        target.index_add_(0, which, values.to(target.dtype))
