"""What moves rows of KV and merges outputs on a GPU in one pass each, in Triton.

torch has no one operator for a sum of rows named by index that is rounded once, nor for a merge by
log-sum-exp in half precision. Out of several, such a sum moves about 38 bytes an element where 6
would do: of `auto`'s plans for eight H100s 8 to 14% of the attention time (counted from the
operators, benchmarks/executor/README.md). Each program here reads its rows' elements once, works in
float32 and writes once. Run on an H200 and in Triton's interpreter; `executor.fused` uses them only
where they agree with torch's operators.

Shapes: n rows, q queries, Hq query heads, D head size. A row's `width` elements are contiguous;
from one row to the next it may be more, as where they are some of a tensor's heads.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_COLUMNS = 1024  # elements of a row that a program takes: 16 bytes a thread in half precision
_QUERIES = 16  # that a program merges, of one head


@triton.jit
def _sum_rows(
    target, rows, splits, sources, first, second, width, target_row, first_row, second_row,
    onto: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    at = target + tl.load(rows + row) * target_row + columns
    total = tl.full([block], 0.0, tl.float32)
    if onto:
        total += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    for index in range(tl.load(splits + row), tl.load(splits + row + 1)):
        source = tl.load(sources + index)
        if source >= 0:
            # No name for what is loaded: the two branches may load different types.
            total += tl.load(first + source * first_row + columns, mask=inside, other=0.0).to(
                tl.float32
            )
        else:
            total += tl.load(
                second + (-1 - source) * second_row + columns, mask=inside, other=0.0
            ).to(tl.float32)
    tl.store(at, total.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _copy_rows(
    target, rows, source, taken, width, target_row, source_row, block: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    values = tl.load(source + tl.load(taken + row) * source_row + columns, mask=inside)
    tl.store(target + tl.load(rows + row) * target_row + columns, values, mask=inside)


# What differs from plan to plan is not compiled in: each plan's first layer would wait for it.
@triton.jit(
    do_not_specialize=["queries", "lse_head", "part_head"],
    do_not_specialize_on_alignment=["lse", "part_lse", "together"],
)
def _merge(
    out, part, lse, part_lse, together, queries, size, out_row, part_row,
    lse_head, lse_query, part_head, part_query,
    block: tl.constexpr, elements: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    query = (tl.program_id(0) * block + tl.arange(0, block)).to(tl.int64)
    there = query < queries
    old = tl.load(lse + head * lse_head + query * lse_query, mask=there, other=0.0)
    new = tl.load(part_lse + head * part_head + query * part_query, mask=there, other=0.0)
    most = tl.maximum(old, new)
    both = most + tl.log(tl.exp(old - most) + tl.exp(new - most))
    element = tl.arange(0, elements)
    in_row = head * size + element
    at = out + (query * out_row)[:, None] + in_row[None, :]
    inside = there[:, None] & (element < size)[None, :]
    kept = tl.load(at, mask=inside, other=0.0).to(tl.float32) * tl.exp(old - both)[:, None]
    new_at = part + (query * part_row)[:, None] + in_row[None, :]
    added = tl.load(new_at, mask=inside, other=0.0).to(tl.float32) * tl.exp(new - both)[:, None]
    tl.store(at, (kept + added).to(out.dtype.element_ty), mask=inside)
    tl.store(lse + head * lse_head + query * lse_query, both, mask=there)
    tl.store(together + head * queries + query, both, mask=there)


def sum_rows(
    target: Tensor,
    rows: Tensor,
    splits: Tensor,
    sources: Tensor,
    values: tuple[Tensor, ...],
    *,
    onto: bool,
) -> None:
    """Sum rows of one or two tensors into rows of `target`: in float32, rounded once.

    Args:
        target: [m, ...].
        rows: distinct rows of it, int64 [n].
        splits: row i takes sources[splits[i]:splits[i + 1]], int64 [n + 1].
        sources: rows of the first tensor; -1 - r is row r of the second. int64.
        values: one or two tensors [..., ...] of any floating type up to float32; may be `target` if
            no row of it is both read and written.
        onto: whether to add to what the rows hold; else a row without a source becomes 0.
    """
    if len(rows) == 0:
        return
    width = target[0].numel()
    with torch.cuda.device_of(target):  # type: ignore[no-untyped-call]
        _sum_rows[len(rows), triton.cdiv(width, _COLUMNS)](
            target, rows, splits, sources, values[0], values[-1], width,
            target.stride(0), values[0].stride(0), values[-1].stride(0), onto, _COLUMNS,
        )  # fmt: skip


def copy_rows(target: Tensor, rows: Tensor, source: Tensor, taken: Tensor) -> None:
    """Copy rows `taken` of `source` to the distinct `rows` of `target`."""
    if len(rows) == 0:
        return
    width = target[0].numel()
    with torch.cuda.device_of(target):  # type: ignore[no-untyped-call]
        _copy_rows[len(rows), triton.cdiv(width, _COLUMNS)](
            target, rows, source, taken, width, target.stride(0), source.stride(0), _COLUMNS
        )


def merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> Tensor:
    """Merge as `executor.merging.merge` does; rows of `out` and `part` are whole, lse float32."""
    queries, heads, size = out.shape
    together = lse.new_empty((heads, queries))
    if queries == 0:
        return together
    with torch.cuda.device_of(out):  # type: ignore[no-untyped-call]
        _merge[triton.cdiv(queries, _QUERIES), heads](
            out, part, lse, part_lse, together, queries, size, out.stride(0), part.stride(0),
            *lse.stride(), *part_lse.stride(), _QUERIES, triton.next_power_of_2(size),
        )  # fmt: skip
    return together
