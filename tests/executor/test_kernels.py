"""Every kernel that runs here against the float64 oracle, and the oracle against autograd."""

import sys
from types import SimpleNamespace

import pytest
import torch

from executor import RunError
from executor.calls import call, parameters
from executor.kernels import (
    ORACLE,
    PlainKernel,
    Segments,
    disagreement,
    first_that_agrees,
    gpu,
    relative_error,
    select,
)
from tests.executor import flash_releases

CPU = torch.device("cpu")
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1.5e-2,
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("head_dim", [8, 64, 80])
@pytest.mark.parametrize("causal", [True, False])
def test_the_cpu_kernel_agrees_with_the_oracle(dtype, head_dim, causal):
    assert disagreement(select(CPU, dtype, head_dim), CPU, dtype, head_dim) <= TOLERANCES[dtype]
    segments = Segments.of([3, 40], [90, 41], CPU, causal=causal)
    q, dout = torch.randn(2, 43, 4, head_dim, dtype=torch.float64).to(dtype)
    k, v = torch.randn(2, 131, 2, head_dim, dtype=torch.float64).to(dtype)
    results = []
    for kernel in (select(CPU, dtype, head_dim), ORACLE):
        result = kernel.forward(q, k, v, segments, 0.2)
        results.append((*result, *kernel.backward(dout, (q, k, v), result, segments, 0.2)))
    for found, true in zip(*results, strict=True):
        assert relative_error(found, true) <= TOLERANCES[dtype]


@pytest.mark.parametrize("q_heads", [1, 6])
def test_the_oracle_agrees_with_autograd_through_a_masked_softmax(q_heads):
    torch.manual_seed(0)
    q_lens, k_lens = [3, 600, 1], [3, 900, 7]
    segments = Segments.of(q_lens, k_lens, CPU)
    kv_heads = min(q_heads, 2)
    q = torch.randn(604, q_heads, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(910, kv_heads, 8, dtype=torch.float64, requires_grad=True) for _ in "kv")
    dout = torch.randn_like(q)
    outs = []
    first = 0, 0
    for q_len, k_len in zip(q_lens, k_lens, strict=True):
        last = first[0] + q_len, first[1] + k_len
        keys, values = (
            x[first[1] : last[1]].repeat_interleave(q_heads // kv_heads, 1) for x in (k, v)
        )
        scores = torch.einsum("qhd,khd->hqk", q[first[0] : last[0]], keys) * 0.3
        seen = torch.ones(q_len, k_len).tril(k_len - q_len).bool()
        weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
        outs.append(torch.einsum("hqk,khd->qhd", weights, values))
        first = last
    true = torch.cat(outs)
    gradients = torch.autograd.grad(true, (q, k, v), dout)
    qkv = tuple(x.detach() for x in (q, k, v))
    result = ORACLE.forward(*qkv, segments, 0.3)
    found = ORACLE.backward(dout, qkv, result, segments, 0.3)
    for one, other in zip((result[0], *found), (true.detach(), *gradients), strict=True):
        assert relative_error(one, other) <= 1e-13


class Broken:
    """Aligns causal masks at the start, as some kernels once did."""

    name = "broken"

    def forward(self, q, k, v, segments, scale, *, out=None):
        cut = Segments.of(segments.q_lens, segments.q_lens, CPU)
        firsts = [0]
        for k_len in segments.k_lens:
            firsts.append(firsts[-1] + k_len)
        rows = torch.cat(
            [torch.arange(f, f + n) for f, n in zip(firsts, segments.q_lens, strict=False)]
        )
        return ORACLE.forward(q, k[rows], v[rows], cut, scale)

    def backward(self, dout, qkv, result, segments, scale, *, into=None):
        return ORACLE.backward(dout, qkv, result, segments, scale)


class Dense:
    """Takes some of a tensor's heads for all of it."""

    name = "dense"

    def forward(self, q, k, v, segments, scale, *, out=None):
        found = torch.as_strided(q, q.shape, (q.shape[1] * q.shape[2], q.shape[2], 1))
        return ORACLE.forward(found, k, v, segments, scale, out=out)

    def backward(self, dout, qkv, result, segments, scale, *, into=None):
        return ORACLE.backward(dout, qkv, result, segments, scale, into=into)


def test_a_kernel_that_ignores_strides_is_found_out():
    assert disagreement(Dense(), CPU, torch.float32, 16) > 0.1


def test_a_kernel_that_is_wrong_is_passed_over_for_one_that_is_right():
    assert disagreement(Broken(), CPU, torch.float32, 16) > 0.1
    chosen = first_that_agrees((Broken, PlainKernel), CPU, torch.float32, 16)
    assert chosen.name == "plain"


def test_without_any_kernel_each_ones_reason_is_given():
    with pytest.raises(
        RunError, match=r"broken: differs .*; TorchVarlen: this torch is built"
    ) as e:
        first_that_agrees((Broken, gpu.TorchVarlen), CPU, torch.bfloat16, 64)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_head_size_that_no_flash_kernel_takes_is_refused_with_one_that_they_do(dtype):
    gpu_without_a_driver = torch.device("cuda", 0)
    for head_dim in range(1, 300):
        if head_dim % 8 == 0:
            continue
        with pytest.raises(RunError) as e:
            select(gpu_without_a_driver, dtype, head_dim)
        padded = next(n for n in range(head_dim, head_dim + 8) if n % 8 == 0)
        assert f"no head size {head_dim} in {dtype}" in str(e.value)
        assert f"zeros to {padded} and pass scale={head_dim}**-0.5" in str(e.value)
        assert "\n" not in str(e.value)
        assert select(CPU, dtype, head_dim).name == "torch-flash-cpu"
        assert select(gpu_without_a_driver, torch.float32, head_dim).name == "plain"


@pytest.mark.parametrize("head_dim", [20, 64])
def test_heads_padded_with_zeros_attend_alike_by_the_scale_of_the_given_size(head_dim):
    segments = Segments.of([3, 40], [90, 41], CPU)
    q, dout = torch.randn(2, 43, 4, head_dim, dtype=torch.float64)
    k, v = torch.randn(2, 131, 2, head_dim, dtype=torch.float64)
    scale = head_dim**-0.5
    result = ORACLE.forward(q, k, v, segments, scale)
    true = (result[0], *ORACLE.backward(dout, (q, k, v), result, segments, scale))
    q, k, v, dout = (torch.nn.functional.pad(x, (0, 12)) for x in (q, k, v, dout))
    result = ORACLE.forward(q, k, v, segments, scale)
    found = (result[0], *ORACLE.backward(dout, (q, k, v), result, segments, scale))
    for one, exact in zip(found, true, strict=True):
        assert relative_error(one[..., :head_dim], exact) <= 1e-13
        assert not one[..., head_dim:].any()


def test_functions_are_called_with_the_parameters_that_they_have():
    assert parameters(torch.ops.aten._flash_attention_forward.default)[:4] == (
        "query", "key", "value", "cum_seq_q",
    )  # fmt: skip
    assert call(lambda a, b=1: (a, b), a=5, c=7) == (5, 1)


RELEASES = {
    "2.8": (
        gpu.FlashAttention2, "flash_attn.flash_attn_interface",
        {
            "_flash_attn_varlen_forward": flash_releases.forward_2,
            "_flash_attn_varlen_backward": flash_releases.backward_2,
        },
    ),
    "3, functions": (
        gpu.FlashAttention3, "flash_attn_interface",
        {
            "_flash_attn_forward": flash_releases.first_forward_3,
            "_flash_attn_backward": flash_releases.first_backward_3,
        },
    ),
    "3, operators": (
        gpu.FlashAttention3, "flash_attn_interface",
        {
            "_flash_attn_forward": flash_releases.forward_3,
            "_flash_attn_backward": flash_releases.backward_3,
        },
    ),
    "4": (
        gpu.FlashAttention4, "flash_attn.cute.interface",
        {
            "_flash_attn_fwd": flash_releases.forward_4,
            "_flash_attn_bwd": flash_releases.backward_4,
        },
    ),
    "4, later": (
        gpu.FlashAttention4, "flash_attn.cute.interface",
        {
            "_flash_attn_fwd": flash_releases.forward_4,
            "_flash_attn_bwd": flash_releases.later_backward_4,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_of_flash_attn_is_called_as_its_signature_wants(monkeypatch, release):
    make, name, functions = RELEASES[release]
    monkeypatch.setitem(sys.modules, name, flash_releases.module(name, **functions))
    assert disagreement(make(), CPU, torch.float32, 16) <= 1e-5


@pytest.fixture
def ask_for_determinism():
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("wanted", [True, False])
def test_backward_is_deterministic_where_torch_is_asked_to_be_or_passed_over(
    monkeypatch, release, wanted, ask_for_determinism
):
    make, name, functions = RELEASES[release]
    monkeypatch.setitem(sys.modules, name, flash_releases.module(name, **functions))
    flash_releases.ASKED.clear()
    ask_for_determinism(wanted)
    chosen = first_that_agrees((make, PlainKernel), CPU, torch.float32, 16)
    if release == "4":  # which cannot be
        assert isinstance(chosen, PlainKernel) == wanted
    else:
        assert isinstance(chosen, make)
        assert list(flash_releases.ASKED) == [wanted]


@pytest.mark.parametrize("make", [gpu.TorchVarlen, gpu.TorchVarlenInPlace])
def test_torch_writes_its_output_where_it_is_wanted_also_of_one_query_a_segment(monkeypatch, make):
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    for name, fake in {
        "_flash_attention_forward": flash_releases.torch_forward,
        "_flash_attention_forward_no_dropout_inplace": flash_releases.torch_forward_in_place,
        "_flash_attention_backward": flash_releases.torch_backward,
    }.items():
        monkeypatch.setattr(torch.ops.aten, name, SimpleNamespace(default=fake), raising=False)
    assert disagreement(make(), CPU, torch.float32, 16) <= 1e-5


def test_errors_of_nothing_and_of_not_a_number():
    assert relative_error(torch.zeros(0), torch.zeros(0)) == 0
    assert relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
    assert relative_error(torch.tensor([1.5]), torch.tensor([2.0])) == 0.25


@pytest.mark.gpu
@pytest.mark.parametrize("make", [
    gpu.FlashAttention4, gpu.FlashAttention3, gpu.FlashAttention2, gpu.TorchVarlenInPlace,
    gpu.TorchVarlen,
], ids=lambda make: make.__name__)  # fmt: skip
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_every_gpu_kernel_that_is_installed_agrees_with_the_oracle(make, head_dim, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    try:
        kernel = make()
    except ImportError as error:
        pytest.skip(str(error))
    assert disagreement(kernel, torch.device("cuda"), dtype, head_dim) <= 0.02
