"""Which device has kernels that move rows and merge in one pass: `executor.kernels.triton_rows`.

A GPU's torch brings Triton along. Its programs are tried once a device on a small case against what
they stand for, and where one is missing, does not compile or is wrong, torch's own operators do the
same in several passes: slower, never different by more than a rounding.
"""

from functools import lru_cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

_TOLERANCE = 0.02  # of values of about 1, in bfloat16


class Fused(Protocol):
    """The functions of `executor.kernels.triton_rows`."""

    def sum_rows(
        self,
        target: Tensor,
        rows: Tensor,
        splits: Tensor,
        sources: Tensor,
        values: tuple[Tensor, ...],
        *,
        onto: bool,
    ) -> None:
        """Sum rows of one or two tensors into rows of `target`."""

    def copy_rows(self, target: Tensor, rows: Tensor, source: Tensor, taken: Tensor) -> None:
        """Copy rows `taken` of `source` to `rows` of `target`."""

    def merge(self, out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> Tensor:
        """Merge a part into an output and its log-sum-exp."""


def fused(*tensors: Tensor) -> Fused | None:
    """Return the kernels for these tensors; None where torch's operators have to do.

    Those are on a GPU, of no more than float32's precision, and every row of theirs is contiguous
    in itself, however far from the next.
    """
    if tensors[0].device.type != "cuda":
        return None
    if any(x.dtype is torch.float64 or not whole_rows(x) for x in tensors):
        return None
    return find(tensors[0].device)[0]


def whole_rows(x: Tensor) -> bool:
    """Tell whether each row of a tensor [rows, ...] is contiguous in itself."""
    return x[:1].is_contiguous()


@lru_cache(maxsize=16)
def find(device: torch.device) -> tuple[Fused | None, str]:
    """Return a device's kernels, if any, and what moves its rows, as reports show it."""
    if device.type != "cuda":
        return None, "torch"
    try:
        kernels = cast("Fused", import_module("executor.kernels.triton_rows"))
        error = disagreement(kernels, device)
    except torch.OutOfMemoryError:
        raise  # else a rank short of memory would keep slower operators, and no one would know
    # Whatever a compiler that is broken here raises, torch's operators work.
    except Exception as problem:  # noqa: BLE001
        line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        return None, f"torch (Triton: {line[:80]})"
    if not error <= _TOLERANCE:
        return None, f"torch (Triton differs by {error:.2g})"
    return kernels, f"Triton {import_module('triton').__version__}"


def disagreement(kernels: Fused, device: torch.device) -> float:
    """Return the largest error of the kernels on small cases of values of about 1.

    In every precision and into float32, so that all that a run needs is known to compile.
    """
    half, whole = (torch.bfloat16, torch.float16), torch.float32
    pairs = [(dtype, dtype) for dtype in (*half, whole)] + [(whole, dtype) for dtype in half]
    return max(_disagreement(kernels, device, *pair) for pair in pairs)


def _disagreement(
    kernels: Fused, device: torch.device, into: torch.dtype, dtype: torch.dtype
) -> float:
    """Do it for one precision of what is written and one of what is read."""
    draw = torch.Generator().manual_seed(0)

    def values(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return (torch.rand(shape, generator=draw) + 0.5).to(device, dtype)

    def heads(rows: int, dtype: torch.dtype = dtype) -> Tensor:
        # Some heads out of more, as where KV travels in parts: rows lie apart.
        return values(rows, 8, 40, dtype=dtype)[:, 2:5]

    errors = []
    rows, splits, sources = (
        torch.tensor(x, device=device) for x in ([7, 0, 3], [0, 2, 2, 5], [4, -4, 0, -1, 2])
    )
    first, second = heads(5), values(4, 3, 40)
    sums = [first[4].double() + second[3], 0 * second[0].double(), first[0].double() + second[0]]
    sums[2] += first[2]
    for onto in (False, True):
        target = heads(9, into)
        expected = target.double()
        for row, total in zip((7, 0, 3), sums, strict=True):
            expected[row] = expected[row] * onto + total
        kernels.sum_rows(target, rows, splits, sources, (first, second), onto=onto)
        errors.append((target - expected).abs() / expected.clamp(min=1))
    if into is dtype:
        taken = rows.new_tensor([1, 1, 4])
        kernels.copy_rows(target, rows, first, taken)
        errors.append((target[rows] - first[taken]).abs())

    out, part = heads(37, into), values(37, 3, 40)
    lse, part_lse = (values(3, 37, dtype=torch.float32) for _ in range(2))
    together = torch.logaddexp(lse, part_lse)
    shares = [(x - together).exp().t().unsqueeze(-1).double() for x in (lse, part_lse)]
    exact = out * shares[0] + part * shares[1]
    found = kernels.merge(out, lse, part, part_lse)
    errors += [(out - exact).abs(), (found - together).abs(), (lse - together).abs()]
    return max(float(x.max()) for x in errors)
