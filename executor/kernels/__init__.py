"""Attention kernels behind one interface; which one is used is found out once a device and shape.

On a CPU torch's flash attention. On a GPU, in half precision, the first of flash-attn 4, 3, 2 and
torch's own that is installed and agrees with the float64 oracle on a small call with prefixes and
as many query heads a KV head as the model has, since kernels are compiled for that; in float32 and
float64 plain matrix products. A kernel that is there but wrong, or does not know the device, is
thereby passed over rather than trusted.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from executor.errors import RunError
from executor.kernels import gpu
from executor.kernels.cpu import CpuKernel
from executor.kernels.plain import ORACLE, PlainKernel
from executor.kernels.segments import Pair, Segments, Triple

__all__ = [
    "ORACLE",
    "Kernel",
    "PlainKernel",
    "Segments",
    "disagreement",
    "first_that_agrees",
    "relative_error",
    "rms_error",
    "select",
]


class Kernel(Protocol):
    """Varlen attention of many segments in one call.

    Shapes: T query tokens, K key tokens, Hq query heads, Hkv key/value heads, D head size.
    """

    @property
    def name(self) -> str:
        """The kernel and its release, as reports show it."""

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
        """Attend.

        Args:
            q: queries [T, Hq, D]. Only its last dimension need be contiguous.
            k: keys [K, Hkv, D], likewise; Hkv divides Hq.
            v: values, likewise.
            segments: which queries attend to which keys.
            scale: of the scores.
            out: where to write the output, contiguous rows of some tensor; None for a new one.

        Returns:
            The output [T, Hq, D], `out` if it was given, and the log-sum-exp of the scores [Hq, T],
            float32 or wider.
        """

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
        """Return the gradients dq, dk and dv, shaped as q, k and v.

        Args:
            dout: gradient of the output [T, Hq, D]. Only its last dimension need be contiguous.
            qkv: queries, keys and values, as in `forward`.
            result: the output of attention to all keys, of which these may be a part, strided
                likewise, and the log-sum-exp over all of them, contiguous.
            segments: as in `forward`.
            scale: as in `forward`.
            into: where to write dq, dk and dv, each contiguous rows of some tensor; None for new
                ones.
        """


def select(device: torch.device, dtype: torch.dtype, head_dim: int, grouped: int = 1) -> Kernel:
    """Return the fastest kernel there is for a device, dtype, head size and query heads a KV head.

    Where torch is asked for deterministic algorithms, the fastest that has a deterministic
    backward. Tried once a process for each of these.

    Raises:
        RunError: no kernel takes the head size, or none agrees; the message says why each was
            passed over.
        torch.OutOfMemoryError: there is no room to try one.
    """
    return _selected(device, dtype, head_dim, grouped, torch.are_deterministic_algorithms_enabled())


@lru_cache(maxsize=32)
def _selected(
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    grouped: int,
    deterministic: bool,  # noqa: ARG001 - kernels ask torch; what they do is another result
) -> Kernel:
    if device.type == "cpu":
        return CpuKernel()
    if dtype not in (torch.bfloat16, torch.float16):
        return PlainKernel()
    if head_dim % 8:
        raise RunError(
            f"flash kernels take no head size {head_dim} in {dtype}, only multiples of 8; pad q, k "
            f"and v with zeros to {head_dim + -head_dim % 8} and pass scale={head_dim}**-0.5, or "
            "take float32"
        )
    makers: tuple[Callable[[], Kernel], ...] = (
        gpu.FlashAttention4,
        gpu.FlashAttention3,
        gpu.FlashAttention2,
        gpu.TorchVarlenInPlace,
        gpu.TorchVarlen,
    )
    return first_that_agrees(makers, device, dtype, head_dim, grouped)


def first_that_agrees(
    makers: tuple[Callable[[], Kernel], ...],
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    grouped: int = 1,
) -> Kernel:
    """Return the first kernel that can be made and agrees with the oracle.

    Raises:
        RunError: none does; the message says why each was passed over.
        torch.OutOfMemoryError: there is no room to try one.
    """
    reasons = []
    for make in makers:
        try:
            kernel = make()
            error = disagreement(kernel, device, dtype, head_dim, grouped)
        except torch.OutOfMemoryError:
            raise  # else a rank short of memory would keep a slower kernel, and no one would know
        # Whatever a kernel that is broken here raises, the next may work.
        except Exception as problem:  # noqa: BLE001
            line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
            reasons.append(f"{getattr(make, '__name__', make)}: {line}")
            continue
        if error <= 0.02:
            return kernel
        reasons.append(f"{kernel.name}: differs from the oracle by {error:.2g}")
    raise RunError(
        f"no attention kernel for {dtype} and head size {head_dim} on {device}; float32 needs "
        "none, or see why each was passed over: " + "; ".join(reasons)
    )


def disagreement(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, head_dim: int, grouped: int = 3
) -> float:
    """Return the largest relative error of `kernel` on small calls, against the oracle.

    Output, log-sum-exp, dq, dk and dv of segments with and without a prefix, causal and not, and of
    segments of one query each, which kernels treat apart; `grouped` query heads on each of two KV
    heads, keys and values read out of one interleaved buffer, results written into larger ones.
    Without a mask queries, output and its gradient are some heads of three more, as where KV
    travels in parts.
    """
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)

    q_lens, k_lens = [5, 70, 1, 130], [5, 203, 1, 131]
    heads = 2 * grouped + 3
    q, dout = random(sum(q_lens), heads, head_dim), random(sum(q_lens), heads, head_dim)
    kv = random(sum(k_lens), 2, 2, head_dim)
    errors = []
    for queries, keys, causal in (
        (q_lens, k_lens, True),
        (q_lens, k_lens, False),
        ([1, 1, 1], [1, 90, 40], True),
    ):
        segments = Segments.of(queries, keys, device, causal=causal)
        if segments is None:
            raise AssertionError
        t, rows = sum(queries), kv[: sum(keys)]
        some, given = (x[:t, 3:].contiguous() if causal else x[:t, 3:] for x in (q, dout))
        qkv = (some, rows[:, 0], rows[:, 1])
        found, truth = (_all_of(one, given, qkv, segments) for one in (kernel, ORACLE))
        errors += [relative_error(a, b) for a, b in zip(found, truth, strict=True)]
    return max(errors)


def _all_of(kernel: Kernel, dout: Tensor, qkv: Triple, segments: Segments) -> tuple[Tensor, ...]:
    scale = qkv[0].shape[2] ** -0.5
    into = (_rows_within(qkv[0]), _rows_within(qkv[1]), _rows_within(qkv[2]))
    out, lse = kernel.forward(*qkv, segments, scale, out=_rows_within(qkv[0]))
    kept = out
    if not dout.is_contiguous():
        kept = out.new_empty((out.shape[0], out.shape[1] + 3, out.shape[2]))[:, 3:]
        kept.copy_(out)
    return (out, lse, *kernel.backward(dout, qkv, (kept, lse), segments, scale, into=into))


def _rows_within(like: Tensor) -> Tensor:
    """Return rows of a larger tensor, shaped as `like`, as the executor hands them over."""
    return like.new_empty((like.shape[0] + 5, *like.shape[1:]))[3:-2]


def relative_error(found: Tensor, truth: Tensor, *, floor: float = 0.01) -> float:
    """Return the largest difference over the largest magnitude of `truth`, never NaN.

    Args:
        found: any shape.
        truth: the same shape.
        floor: the least magnitude to divide by. A document of one token has gradients of exactly
            zero for its query and key, against which any rounding would count as infinitely wrong.

    Returns:
        The error; 0 for empty tensors, infinity where `found` is not finite.
    """
    if truth.numel() == 0:
        return 0.0
    difference = found.to(torch.float64) - truth.to(torch.float64)
    error = float(difference.abs().max()) / max(float(truth.abs().max()), floor)
    return error if math.isfinite(error) else math.inf


def rms_error(found: Tensor, truth: Tensor, *, floor: float = 0.01) -> float:
    """Return the difference's root mean square over that of `truth`; else as `relative_error`.

    Half precision is compared by this: the largest of a few hundred roundings varies by chance,
    where their mean says how often was rounded.
    """
    if truth.numel() == 0:
        return 0.0
    difference = (found.to(torch.float64) - truth.to(torch.float64)).square().mean().sqrt()
    error = float(difference) / max(float(truth.double().square().mean().sqrt()), floor)
    return error if math.isfinite(error) else math.inf
