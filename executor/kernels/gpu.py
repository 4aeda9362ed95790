"""Flash attention on NVIDIA GPUs: flash-attn 4, 3 or 2 where installed, else torch's own varlen.

All give the output and the log-sum-exp, [heads, tokens], and take both back in backward; they mask
causally aligned at the end, and read queries, keys, values, output and its gradient at any stride
but the last dimension's (torch's backward copies the last two itself unless they are contiguous).
Forward and backward are called one by one, never through the libraries' own autograd, which ignores
the gradient of the log-sum-exp. Their private entrances differ between releases, so each is called
with the parameters that it has, and is not used before it agreed with the oracle on a small call
(`executor.kernels.select`). Where a release cannot write its result where it is wanted, that costs
a copy. Where torch is asked for deterministic algorithms, so is each backward, and a release that
has none is passed over; torch's own operator asks by itself. Written against flash-attn 2.7,
flash-attn-3 3.0 and torch 2.6 to 2.13; of these only torch 2.11's has run on a GPU by us
(benchmarks/gpu/README.md).

Shapes: T query tokens, K key tokens, Hq query heads, Hkv key/value heads, D head size.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from executor.calls import call, parameters
from executor.errors import RunError
from executor.kernels.segments import Pair, Segments, Triple, written, written_all

# What flash-attn 3 has for inference; without defaults in its first releases.
_UNUSED_BY_3 = dict.fromkeys(
    (
        *("k_new", "v_new", "qv", "cu_seqlens_k_new", "seqused_q", "seqused_k", "page_table"),
        *("kv_batch_idx", "leftpad_k", "rotary_cos", "rotary_sin", "seqlens_rotary"),
        *("q_descale", "k_descale", "v_descale"),
    )
)


class FlashAttention2:
    """The flash-attn package, release 2."""

    name = "flash-attn-2"

    def __init__(self) -> None:
        """Raises ImportError where the package is missing or broken."""
        self._module: Any = import_module("flash_attn.flash_attn_interface")
        self.name = f"flash-attn {_version('flash-attn', 'flash_attn')}"

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
        found = call(
            self._module._flash_attn_varlen_forward,
            q=q, k=k, v=v,
            **_shape(segments),
            **_plain(scale),
            causal=segments.causal,
            return_softmax=False,
        )  # fmt: skip
        # Since 2.7: out, lse, ...; before it: out, q, k, v, out_padded, lse, ...
        return written(found[0], out), found[1] if found[1].ndim == 2 else found[5]

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
        dq, dk, dv = into or (_like(q), _like(k), _like(v))
        call(
            self._module._flash_attn_varlen_backward,
            # Of no input more is asked than a contiguous last dimension, here as in release 3.
            dout=dout if dout.stride(-1) == 1 else dout.contiguous(),
            q=q, k=k, v=v, out=out, softmax_lse=lse,
            dq=dq, dk=dk, dv=dv,
            **_shape(segments),
            **_plain(scale),
            causal=segments.causal,
            **_deterministic(self._module._flash_attn_varlen_backward),
            rng_state=None,
        )  # fmt: skip
        return dq, dk, dv


class FlashAttention3:
    """The flash_attn_interface module of flash-attn's `hopper` folder."""

    name = "flash-attn-3"

    def __init__(self) -> None:
        """Raises ImportError where the package is missing or broken."""
        self._module: Any = import_module("flash_attn_interface")
        self.name = f"flash-attn {_version('flash_attn_3', 'flash-attn-3')}"

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
        found = call(
            self._module._flash_attn_forward,
            q=q, k=k, v=v,
            **_shape(segments),
            softmax_scale=scale,
            causal=segments.causal,
            # Not `out_`, of later releases: a custom operator may not return what it was given.
            out=out,
            **_UNUSED_BY_3,
        )  # fmt: skip
        return written(found[0], out), found[1]

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
        dq, dk, dv = into or (_like(q), _like(k), _like(v))
        call(
            self._module._flash_attn_backward,
            dout=dout, q=q, k=k, v=v, out=out, softmax_lse=lse,
            dq=dq, dk=dk, dv=dv,
            **_shape(segments),
            softmax_scale=scale,
            causal=segments.causal,
            is_causal=segments.causal,
            sequed_q=None, sequed_k=None,
            **_deterministic(self._module._flash_attn_backward),
        )  # fmt: skip
        return dq, dk, dv


class FlashAttention4:
    """The CuTe kernels of flash-attn, `flash_attn.cute`."""

    name = "flash-attn-4"

    def __init__(self) -> None:
        """Raises ImportError where the package is missing or broken."""
        self._module: Any = import_module("flash_attn.cute.interface")
        self.name = f"flash-attn {_version('flash-attn-4', 'flash_attn_4')} (CuTe)"

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
        found = call(
            self._module._flash_attn_fwd,
            q=q, k=k, v=v,
            **_shape(segments),
            softmax_scale=scale,
            causal=segments.causal,
            return_lse=True,
            out=out,
        )  # fmt: skip
        return written(found[0], out), found[1]

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
        dq, dk, dv = into or (None, None, None)
        found = call(
            self._module._flash_attn_bwd,
            q=q, k=k, v=v, out=out, dout=dout, lse=lse,
            **_shape(segments),
            softmax_scale=scale,
            causal=segments.causal,
            dq=dq, dk=dk, dv=dv,
            **_deterministic(self._module._flash_attn_bwd),
        )  # fmt: skip
        return written_all((found[0], found[1], found[2]), into)


class TorchVarlen:
    """The flash attention that torch itself is built with (what `varlen_attn` calls)."""

    def __init__(self) -> None:
        """Raises ImportError where torch is built without it."""
        if not torch.backends.cuda.is_flash_attention_available():
            raise ImportError("this torch is built without flash attention")
        self.name = f"torch {torch.__version__} varlen"

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
        found, lse = torch.ops.aten._flash_attention_forward.default(
            q, k, v, *_positional(segments), 0.0, segments.causal, False, scale=scale
        )[:2]
        return written(found, out), lse

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
        # No dropout, so the state of the random numbers is read by nobody.
        state = torch.zeros(2, dtype=torch.uint64, device=q.device)
        unused = torch.empty(0, device=q.device)
        dq, dk, dv = torch.ops.aten._flash_attention_backward.default(
            dout, q, k, v, out, lse, *_positional(segments),
            0.0, segments.causal, state, unused, scale=scale,
        )  # fmt: skip
        return written_all((dq, dk, dv), into)


class TorchVarlenInPlace(TorchVarlen):
    """The same by an operator of newer releases that writes its output where it is wanted."""

    def __init__(self) -> None:
        """Raises ImportError where torch has no such operator."""
        super().__init__()
        found = getattr(torch.ops.aten, "_flash_attention_forward_no_dropout_inplace", None)
        if found is None:
            raise ImportError(f"torch {torch.__version__} writes to new tensors only")
        self._forward: Any = found.default

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
        if segments.max_q == 1:
            # With shared KV heads torch then regroups the queries, and their output, into copies.
            return super().forward(q, k, v, segments, scale, out=out)
        out = _like(q) if out is None else out
        lse = self._forward(
            out, q, k, v, *_positional(segments), 0.0, segments.causal, False, scale=scale
        )
        return out, lse


def _positional(segments: Segments) -> tuple[Tensor, Tensor, int, int]:
    return segments.cu_q, segments.cu_k, segments.max_q, segments.max_k


def _shape(segments: Segments) -> dict[str, Any]:
    return {
        "cu_seqlens_q": segments.cu_q,
        "cu_seqlens_k": segments.cu_k,
        "max_seqlen_q": segments.max_q,
        "max_seqlen_k": segments.max_k,
    }


def _plain(scale: float) -> dict[str, Any]:
    """Return flash-attn 2's arguments that ask for nothing special."""
    return {
        "dropout_p": 0.0,
        "softmax_scale": scale,
        "window_size": (-1, -1),
        "window_size_left": -1,
        "window_size_right": -1,
        "softcap": 0.0,
        "alibi_slopes": None,
    }


def _deterministic(backward: Callable[..., Any]) -> dict[str, bool]:
    """Return the argument that says whether gradients are to be the same bits in every run.

    Raises:
        RunError: they are to be, and this release has no such argument.
    """
    wanted = torch.are_deterministic_algorithms_enabled()
    if wanted and "deterministic" not in parameters(backward):
        raise RunError("has no deterministic backward")
    return {"deterministic": wanted}


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown release"
