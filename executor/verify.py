"""Holds a run against attention on one process: output, dq, dk, dv, and that documents are apart.

The truth is float64 attention to the same inputs, document by document: torch's flash kernel on a
CPU, matrix products on a GPU. Float64 runs must agree with it to 1e-10 of the largest magnitude,
float32 to 1e-5, and half precision, by root mean squares, within twice the error that the same
kernel makes on one process. As the truth of a long pack takes long, it is computed for as many KV
heads (with their query heads) as a fixed number of operations allows, but at least one of each part
in which KV travels, so that what is checked is what is timed; the report says how many.
That no document sees another is exact: a changed document must leave every other's output bit for
bit, and a gradient that is zero outside one document must leave zeros outside it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from executor.inputs import Inputs
from executor.kernels import ORACLE, Kernel, Segments, relative_error, rms_error, select
from executor.kernels.cpu import CpuKernel
from flashcp.plans import Plan

_MOST_FLOPS = {"cpu": 1.5e11, "cuda": 2e13}
_TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
NAMES = ("out", "dq", "dk", "dv")

# Runs a plan on a pack's inputs; out, dq, dk and dv of the pack where they are gathered, else None.
Run: TypeAlias = Callable[[Inputs], tuple[Tensor, ...] | None]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        passed: whether every check held.
        kv_heads: KV heads that were checked, of all.
        errors: of out, dq, dk and dv, by `relative_error`, in half precision by `rms_error`.
        tolerances: what they may be.
        leaked: documents, or gradients of them, that another document's change reached; None where
            the pack has one document.
    """

    passed: bool
    kv_heads: int
    errors: dict[str, float]
    tolerances: dict[str, float]
    leaked: int | None

    def to_json(self) -> dict[str, object]:
        """Return the fields as a JSON object; 1e300 is an error that is not finite."""
        return {**asdict(self), "errors": {k: min(v, 1e300) for k, v in self.errors.items()}}


def checked_heads(plan: Plan, inputs: Inputs) -> int:
    """Return for how many KV heads the truth is affordable, at least one of each part.

    As many parts of them travel as of all heads.
    """
    heads = inputs.k.shape[1]
    lengths = plan.lengths.astype(np.float64)
    pairs = float((lengths * (lengths + 1) / 2).sum())
    flops = pairs * 14 * inputs.q.shape[2] * inputs.q.shape[1] / heads
    parts = plan.chunks(heads)
    affordable = int(min(_MOST_FLOPS[inputs.q.device.type] // flops, heads))
    possible = range(parts, max(affordable, parts) + 1, parts)
    return max(number for number in possible if plan.chunks(number) == parts)


def narrowed(inputs: Inputs, kv_heads: int) -> Inputs:
    """Return the first `kv_heads` KV heads and the query heads that share them."""
    return inputs.map(lambda x: x[:, : x.shape[1] * kv_heads // inputs.k.shape[1]].contiguous())


def truth(plan: Plan, inputs: Inputs, scale: float) -> tuple[Tensor, ...]:
    """Return out, dq, dk and dv in float64, on one process."""
    kernel: Kernel = CpuKernel() if inputs.q.device.type == "cpu" else ORACLE
    return alone(plan, inputs.map(lambda x: x.double()), kernel, scale)


def alone(plan: Plan, inputs: Inputs, kernel: Kernel, scale: float) -> tuple[Tensor, ...]:
    """Return out, dq, dk and dv of one call of `kernel` over the whole pack."""
    lengths = plan.lengths.astype(np.int64)
    segments = Segments.of(lengths, lengths, inputs.q.device)
    assert segments is not None  # noqa: S101 - a pack has documents
    qkv = (inputs.q, inputs.k, inputs.v)
    result = kernel.forward(*qkv, segments, scale)
    return (result[0], *kernel.backward(inputs.dout, qkv, result, segments, scale))


def tolerances(
    plan: Plan, inputs: Inputs, true: tuple[Tensor, ...], scale: float
) -> dict[str, float]:
    """Return what the errors of out, dq, dk and dv may be."""
    dtype = inputs.q.dtype
    if dtype in _TOLERANCES:
        return dict.fromkeys(NAMES, _TOLERANCES[dtype])
    kernel = select(inputs.q.device, dtype, inputs.q.shape[2])
    found = alone(plan, inputs, kernel, scale)
    return {name: 2 * rms_error(a, b) for name, a, b in zip(NAMES, found, true, strict=True)}


def verify(plan: Plan, inputs: Inputs, run: Run, scale: float) -> Verification | None:
    """Run a plan and check what comes out; on ranks where nothing is gathered return None.

    Args:
        plan: the plan.
        inputs: of the whole pack.
        run: runs the plan, on every rank alike.
        scale: of the scores.
    """
    inputs = narrowed(inputs, checked_heads(plan, inputs))
    found = run(inputs)
    leaked = None
    changed = changed_document(plan)
    if changed is not None:
        after = run(disturbed(inputs, changed[1]))
        if found is not None and after is not None:
            leaked = leaks(found[0], after, plan.lengths, changed[0])
    if found is None:
        return None
    true = truth(plan, inputs, scale)
    allowed = tolerances(plan, inputs, true, scale)
    measure = relative_error if inputs.q.dtype in _TOLERANCES else rms_error
    # Of one-token documents alone, gradients of q and k are zero: any rounding is infinitely much.
    floor = 1.0 if plan.lengths.max() == 1 else 0.01
    errors = {
        name: measure(a, b, floor=floor) for name, a, b in zip(NAMES, found, true, strict=True)
    }
    return Verification(
        passed=all(errors[name] <= allowed[name] for name in NAMES) and not leaked,
        kv_heads=inputs.k.shape[1],
        errors=errors,
        tolerances=allowed,
        leaked=leaked,
    )


def changed_document(plan: Plan) -> tuple[int, slice] | None:
    """Return the document cut into most shards, and its tokens; None where it is the only one."""
    if plan.lengths.size == 1:
        return None
    document = int(np.bincount(plan.document, minlength=plan.lengths.size).argmax())
    first = int(plan.lengths[:document].sum(dtype=np.int64))
    return document, slice(first, first + int(plan.lengths[document]))


def disturbed(inputs: Inputs, tokens: slice) -> Inputs:
    """Return inputs of which one document is another, and whose gradient is zero elsewhere."""
    result = inputs.map(torch.clone)
    for tensor in (result.q, result.k, result.v):
        tensor[tokens] = tensor[tokens] * -3 + 1
    dout = torch.zeros_like(inputs.dout)
    dout[tokens] = inputs.dout[tokens]
    return Inputs(result.q, result.k, result.v, dout)


def leaks(
    before: Tensor, after: tuple[Tensor, ...], lengths: NDArray[np.int32], changed: int
) -> int:
    """Count the documents that the change of one reached.

    Args:
        before: output before the change, [T, Hq, D].
        after: output, dq, dk and dv after it.
        lengths: tokens of each document.
        changed: the document that was changed.
    """
    differs = (before != after[0]).flatten(1).any(1)
    for gradient in after[1:]:
        differs = differs | (gradient != 0).flatten(1).any(1)
    documents = np.repeat(np.arange(lengths.size), lengths)
    reached = np.unique(documents[differs.cpu().numpy()])
    return int((reached != changed).sum())
