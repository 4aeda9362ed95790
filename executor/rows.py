"""Rows of a tensor: a slice where they are contiguous, so that taking them copies nothing."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from executor.fused import find, fused
from groundwork.jit import jit

Rows: TypeAlias = slice | Tensor


def rows(indices: NDArray[np.int64], device: torch.device) -> Rows:
    """Return `indices`, [n], as a slice where they are n neighbours in order, else as a tensor."""
    if indices.size == 0:
        return slice(0, 0)
    first, last = int(indices[0]), int(indices[-1])
    if last - first + 1 == indices.size and bool(np.all(np.diff(indices) == 1)):
        return slice(first, last + 1)
    return on_device(indices, device)


def on_device(numbers: NDArray[Any], device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, without making the host wait for that device.

    A copy out of pageable memory would: it begins when all that was queued before has run, and a
    training step, which has a plan of its own, makes dozens of them.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(numbers))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
        target[which].add_(values)
    else:
        target.index_add_(0, which, values.to(target.dtype))


def move(target: Tensor, to: Rows, source: Tensor, taken: Rows) -> None:
    """Copy rows of `source` to distinct rows of `target`, both [..., ...] of one dtype."""
    if not isinstance(to, slice) and not isinstance(taken, slice):
        if (kernels := fused(target, source)) is not None:
            kernels.copy_rows(target, to, source, taken)
            return
    elif isinstance(to, slice):
        take_into(target[to], source, taken)
        return
    put(target, to, take(source, taken))


Pairs: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Sums:
    """Rows of one or two tensors that meet in rows of another.

    Attributes:
        kinds: of each tensor, to which of the rows where they meet each of its rows belongs, and
            which row it is.
        device: where the tensors are.
        named: the distinct rows where they meet, [n], and row by row which rows meet there, as
            fused kernels take them: see `executor.kernels.triton_rows.sum_rows`.
    """

    kinds: tuple[Pairs, ...]
    device: torch.device
    named: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

    @classmethod
    def of(cls, device: torch.device, *kinds: Pairs, every: int | None = None) -> "Sums | None":
        """Return the sums of rows of one or two tensors; None where there is none.

        Args:
            device: where the tensors are.
            kinds: for each tensor, in which row each of its rows meets others, and which row it is.
            every: how many rows they may meet in, of which some get none; None for those that do.
        """
        meets = np.concatenate([meets for meets, _ in kinds])
        taken = [taken if kind == 0 else -1 - taken for kind, (_, taken) in enumerate(kinds)]
        most = (int(meets.max(initial=-1)) + 1) if every is None else every
        distinct, inverse, splits, sources = _by_row(
            meets, np.concatenate(taken), most, every is None
        )
        if distinct.size == 0:
            return None
        ends = np.cumsum([meets.size for meets, _ in kinds])[:-1]
        places = np.split(inverse, ends)
        which = tuple((place, taken) for place, (_, taken) in zip(places, kinds, strict=True))
        made = cls(which, device, (distinct, splits, sources))
        # Now, what this device's operators take: a run should not stop to copy indices.
        _ = made.places if find(device)[0] is None else made.index
        return made

    @cached_property
    def places(self) -> tuple[Rows, tuple[tuple[Rows, Rows], ...]]:
        """The rows where they meet, and `kinds`, on the device, as torch's operators take them."""
        kinds = tuple(
            (rows(place, self.device), rows(taken, self.device)) for place, taken in self.kinds
        )
        return rows(self.named[0], self.device), kinds

    @cached_property
    def index(self) -> tuple[Tensor, Tensor, Tensor]:
        """`named` on the device."""
        distinct, splits, sources = (on_device(x, self.device) for x in self.named)
        return distinct, splits, sources

    def add(self, target: Tensor, *values: Tensor) -> None:
        """Add rows of `values` to `target`'s: in float32 or wider, rounded once."""
        self._sum(target, values, onto=True)

    def write(self, target: Tensor, *values: Tensor) -> None:
        """Write the sums of rows of `values` to `target`'s: as `add` does."""
        self._sum(target, values, onto=False)

    def _sum(self, target: Tensor, values: tuple[Tensor, ...], *, onto: bool) -> None:
        if (kernels := fused(target, *values)) is not None:
            kernels.sum_rows(target, *self.index, values, onto=onto)
            return
        meet, kinds = self.places
        if onto:
            total = take(target, meet).to(wide(target.dtype))
        else:
            shape = (count(meet), *target.shape[1:])
            total = torch.zeros(shape, dtype=wide(target.dtype), device=target.device)
        for (places, taken), one in zip(kinds, values, strict=True):
            add(total, places, take(one, taken))
        put(target, meet, total)


@jit
def _by_row(
    meets: NDArray[np.int64], sources: NDArray[np.int64], rows: int, only_met: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sort rows by where they meet, by counting: in time proportional to their number.

    Returns:
        The distinct rows where they meet, or all of `rows`, [n]; to which of them each belongs;
        where the sources of each begin, [n + 1]; and the sources, in their order.
    """
    counts = np.zeros(rows + 1, np.int64)
    for row in meets:
        counts[row] += 1
    number = np.full(rows, -1, np.int64)
    distinct = np.empty(rows, np.int64)
    splits = np.zeros(rows + 1, np.int64)
    found = 0
    for row in range(rows):
        if counts[row] > 0 or not only_met:
            distinct[found], number[row] = row, found
            splits[found + 1] = splits[found] + counts[row]
            found += 1
    inverse, ordered = np.empty_like(meets), np.empty_like(sources)
    filled = splits.copy()
    for i in range(meets.size):
        place = number[meets[i]]
        inverse[i] = place
        ordered[filled[place]] = sources[i]
        filled[place] += 1
    return distinct[:found].copy(), inverse, splits[: found + 1].copy(), ordered


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the precision to sum in."""
    return torch.float64 if dtype is torch.float64 else torch.float32
