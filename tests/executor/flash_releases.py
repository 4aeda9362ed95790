"""Stand-ins for flash attention's releases: the true signatures around plain matrix products.

Parameters, defaults and what is returned are those of flash-attn 2.8 (`flash_attn_interface.py`),
of flash-attn 3 before and after it became a custom operator (`hopper/flash_attn_interface.py`), of
flash-attn 4 (`flash_attn/cute/interface.py`) and of torch's operators; one that the callers must
not give to a custom operator, or have to give, is refused or missed as it would be on a GPU.
"""

from types import ModuleType

import torch
from torch import Tensor, library

from executor.kernels import PlainKernel, Segments

PLAIN = PlainKernel()
ASKED = set()  # whether backward was asked to be deterministic, of the releases that can be


def segments(cu_q, cu_k, causal):
    return Segments.of(cu_q.diff().tolist(), cu_k.diff().tolist(), cu_q.device, causal=causal)


def module(name, **functions):
    made = ModuleType(name)
    for function, body in functions.items():
        setattr(made, function, body)
    return made


@library.custom_op("flash_releases::forward_2", mutates_args=(), device_types="cpu")
def forward_2(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
    max_seqlen_q: int, max_seqlen_k: int, dropout_p: float, softmax_scale: float, causal: bool,
    window_size_left: int = -1, window_size_right: int = -1, softcap: float = 0.0,
    alibi_slopes: Tensor | None = None, return_softmax: bool = False,
    block_table: Tensor | None = None, leftpad_k: Tensor | None = None,
    seqused_k: Tensor | None = None, zero_tensors: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    out, lse = PLAIN.forward(q, k, v, segments(cu_seqlens_q, cu_seqlens_k, causal), softmax_scale)
    return out, lse, q.new_empty(0), torch.empty(2, dtype=torch.int64)


@library.custom_op(
    "flash_releases::backward_2", mutates_args=("dq", "dk", "dv"), device_types="cpu"
)
def backward_2(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor,
    dq: Tensor | None, dk: Tensor | None, dv: Tensor | None,
    cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int, max_seqlen_k: int,
    dropout_p: float, softmax_scale: float, causal: bool, window_size_left: int,
    window_size_right: int, softcap: float, alibi_slopes: Tensor | None, deterministic: bool,
    rng_state: Tensor | None = None, zero_tensors: bool = False,
) -> Tensor:  # fmt: skip
    ASKED.add(deterministic)
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    PLAIN.backward(dout, (q, k, v), (out, softmax_lse), shape, softmax_scale, into=(dq, dk, dv))
    return torch.empty_like(softmax_lse)


def first_forward_3(
    q, k, v, k_new, v_new, qv, out, cu_seqlens_q, cu_seqlens_k, cu_seqlens_k_new, seqused_q,
    seqused_k, max_seqlen_q, max_seqlen_k, page_table, kv_batch_idx, leftpad_k, rotary_cos,
    rotary_sin, seqlens_rotary, q_descale, k_descale, v_descale, softmax_scale, causal,
    window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True,
    scheduler_metadata=None, num_splits=1, pack_gqa=None, sm_margin=0,
):  # fmt: skip
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    return *PLAIN.forward(q, k, v, shape, softmax_scale, out=out), None, None


def first_backward_3(
    dout, q, k, v, out, softmax_lse, cu_seqlens_q, cu_seqlens_k, sequed_q, sequed_k, max_seqlen_q,
    max_seqlen_k, dq, dk, dv, softmax_scale, causal, window_size=(-1, -1), softcap=0.0,
    deterministic=False, sm_margin=0,
):  # fmt: skip
    ASKED.add(deterministic)
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    PLAIN.backward(dout, (q, k, v), (out, softmax_lse), shape, softmax_scale, into=(dq, dk, dv))
    return dq, dk, dv, softmax_lse


@library.custom_op("flash_releases::forward_3", mutates_args=(), device_types="cpu")
def forward_3(
    q: Tensor, k: Tensor, v: Tensor, k_new: Tensor | None = None, v_new: Tensor | None = None,
    qv: Tensor | None = None, out_: Tensor | None = None, cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None, cu_seqlens_k_new: Tensor | None = None,
    seqused_q: Tensor | None = None, seqused_k: Tensor | None = None,
    max_seqlen_q: int | None = None, max_seqlen_k: int | None = None,
    page_table: Tensor | None = None, kv_batch_idx: Tensor | None = None,
    leftpad_k: Tensor | None = None, rotary_cos: Tensor | None = None,
    rotary_sin: Tensor | None = None, seqlens_rotary: Tensor | None = None,
    q_descale: Tensor | None = None, k_descale: Tensor | None = None,
    v_descale: Tensor | None = None, softmax_scale: float | None = None, causal: bool = False,
    window_size_left: int = -1, window_size_right: int = -1, attention_chunk: int = 0,
    softcap: float = 0.0, rotary_interleaved: bool = True,
    scheduler_metadata: Tensor | None = None, num_splits: int = 1, pack_gqa: bool | None = None,
    sm_margin: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    out, lse = PLAIN.forward(q, k, v, shape, softmax_scale, out=out_)
    return out, lse, q.new_empty(0), q.new_empty(0)


@library.custom_op(
    "flash_releases::backward_3", mutates_args=("dq", "dk", "dv"), device_types="cpu"
)
def backward_3(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor,
    cu_seqlens_q: Tensor | None = None, cu_seqlens_k: Tensor | None = None,
    sequed_q: Tensor | None = None, sequed_k: Tensor | None = None,
    max_seqlen_q: int | None = None, max_seqlen_k: int | None = None, dq: Tensor | None = None,
    dk: Tensor | None = None, dv: Tensor | None = None, softmax_scale: float | None = None,
    is_causal: bool = False, window_size_left: int = -1, window_size_right: int = -1,
    softcap: float = 0.0, deterministic: bool = False, sm_margin: int = 0,
) -> Tensor:  # fmt: skip
    ASKED.add(deterministic)
    shape = segments(cu_seqlens_q, cu_seqlens_k, is_causal)
    PLAIN.backward(dout, (q, k, v), (out, softmax_lse), shape, softmax_scale, into=(dq, dk, dv))
    return torch.empty_like(softmax_lse)


def forward_4(
    q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, seqused_q=None, seqused_k=None,
    max_seqlen_q=None, max_seqlen_k=None, page_table=None, softmax_scale=None, causal=False,
    softcap=None, window_size_left=None, window_size_right=None, return_lse=False, out=None,
    lse=None,
):  # fmt: skip
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    out, lse = PLAIN.forward(q, k, v, shape, softmax_scale, out=out)
    return out, lse if return_lse else None


def backward_4(
    q, k, v, out, dout, lse, softmax_scale=None, causal=False, softcap=0.0, cu_seqlens_q=None,
    cu_seqlens_k=None, seqused_q=None, seqused_k=None,
):  # fmt: skip
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    return PLAIN.backward(dout, (q, k, v), (out, lse), shape, softmax_scale)


def later_backward_4(
    q, k, v, out, dout, lse, softmax_scale=None, causal=False, softcap=0.0, cu_seqlens_q=None,
    cu_seqlens_k=None, seqused_q=None, seqused_k=None, deterministic=False, dq=None, dk=None,
    dv=None,
):  # fmt: skip
    ASKED.add(deterministic)
    shape = segments(cu_seqlens_q, cu_seqlens_k, causal)
    return PLAIN.backward(dout, (q, k, v), (out, lse), shape, softmax_scale, into=(dq, dk, dv))


def torch_forward(
    query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal,
    return_debug_mask, *, scale=None,
):  # fmt: skip
    shape = segments(cum_seq_q, cum_seq_k, is_causal)
    return *PLAIN.forward(query, key, value, shape, scale), None, None, None


def torch_forward_in_place(out, query, *rest, scale=None):
    # As `mha_varlen_fwd` does it: one query a segment and shared KV heads are regrouped, by copies.
    max_q, shared = rest[4], query.shape[1] > rest[0].shape[1] > 1
    found, lse, *_ = torch_forward(query, *rest, scale=scale)
    (out.clone() if max_q == 1 and shared else out).copy_(found)
    return lse


def torch_backward(
    grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p,
    is_causal, rng_state, unused, *, scale=None,
):  # fmt: skip
    shape = segments(cum_seq_q, cum_seq_k, is_causal)
    return PLAIN.backward(grad_out, (query, key, value), (out, logsumexp), shape, scale)
