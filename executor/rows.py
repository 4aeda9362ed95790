"""Rows of a tensor: a slice where they are contiguous, so that taking them copies nothing."""

from dataclasses import dataclass
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


def count(which: Rows) -> int:
    """Return how many rows there are."""
    return which.stop - which.start if isinstance(which, slice) else len(which)


def take(tensor: Tensor, which: Rows) -> Tensor:
    """Return the rows [n, ...] of a tensor [m, ...]: a view of a slice, else a copy."""
    return tensor[which] if isinstance(which, slice) else tensor.index_select(0, which)


def take_into(target: Tensor, tensor: Tensor, which: Rows) -> None:
    """Copy rows of a tensor [m, ...] into `target`, [n, ...], contiguous or not."""
    if isinstance(which, slice):
        target.copy_(tensor[which])
    else:
        torch.index_select(tensor, 0, which, out=target)


def put(target: Tensor, which: Rows, values: Tensor) -> None:
    """Write `values`, [n, ...], to distinct rows of `target`, in the precision of `target`."""
    if isinstance(which, slice):
        if target[which].data_ptr() != values.data_ptr():
            target[which] = values
    else:
        target.index_copy_(0, which, values.to(target.dtype))


def add(target: Tensor, which: Rows, values: Tensor) -> None:
    """Add `values`, [n, ...], to rows of `target`, in the precision of `target`.

    A row may be named more than once; sums are then in the order of `values` on a CPU.
    """
    if isinstance(which, slice):
        target[which] += values
    else:
        target.index_add_(0, which, values.to(target.dtype))


@dataclass(frozen=True, eq=False)
class Sums:
    """Rows that several contributions meet in.

    Attributes:
        rows: the distinct rows.
        places: of each kind of contribution, to which of `rows` each one belongs.
    """

    rows: Rows
    places: tuple[Rows, ...]

    @classmethod
    def of(cls, device: torch.device, *contributions: NDArray[np.int64]) -> "Sums | None":
        """Return the sums of contributions to these rows; None where there is none."""
        distinct, inverse = np.unique(np.concatenate(contributions), return_inverse=True)
        if distinct.size == 0:
            return None
        ends = np.cumsum([one.size for one in contributions])[:-1]
        return cls(
            rows(distinct, device), tuple(rows(part, device) for part in np.split(inverse, ends))
        )

    def add(self, target: Tensor, *values: Tensor) -> None:
        """Add each kind's values to `target`'s rows: in float32 or wider, rounded once."""
        total = take(target, self.rows).to(wide(target.dtype))
        for places, one in zip(self.places, values, strict=True):
            add(total, places, one)
        put(target, self.rows, total)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision to sum in."""
    return torch.float64 if dtype is torch.float64 else torch.float32
