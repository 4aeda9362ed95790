"""One-pass kernels, in Triton's interpreter: against torch's operators, and in whole runs.

The interpreter rounds float32 to bfloat16 by cutting off, so bfloat16 may differ by a last digit.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import executor.kernels
from executor import fused, merging
from executor.kernels import relative_error
from executor.kernels.plain import ORACLE
from executor.rows import Sums, move, rows
from flashcp.copied import LANDING
from tests.executor.packs import all_plans, random_lengths, scattered_plan
from tests.executor.test_emulate import alone, draw, emulated

pytest.importorskip("triton", reason="Triton is not installed")
CPU = torch.device("cpu")
LAST_DIGIT = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def kernels():
    """The kernels' module, made once more for the interpreter."""
    importlib.import_module("executor.kernels.triton_rows")  # made before, for the compiler
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        path = Path(executor.kernels.__file__).with_name("triton_rows.py")
        spec = importlib.util.spec_from_file_location("interpreted_triton_rows", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def use(patch, found):
    """Let a run use these kernels, or none."""
    for module in ("rows", "merging"):
        patch.setattr(f"executor.{module}.fused", lambda *tensors: found)


def test_they_agree_on_the_case_that_decides_whether_they_are_used(kernels):
    assert fused.disagreement(kernels, CPU) <= 0.02


def test_kernels_that_are_wrong_are_found_out(kernels):
    class Wrong:
        sum_rows = staticmethod(kernels.sum_rows)
        merge = staticmethod(kernels.merge)

        @staticmethod
        def copy_rows(target, to, source, taken):
            kernels.copy_rows(target, to, source, taken.flip(0))

    assert fused.disagreement(Wrong, CPU) > 0.02


def test_rows_that_lie_apart_are_whole_and_rows_with_gaps_are_not():
    x = torch.zeros(5, 4, 6)
    assert all(map(fused.whole_rows, (x, x[1:], x[::2], x[:, 1:3], x[:0], x[:, :1, :3])))
    assert not any(map(fused.whole_rows, (x[:, ::2], x[:, :, :3], x.transpose(1, 2))))


def test_without_a_gpu_torch_does_it():
    assert fused.find(CPU) == (None, "torch")
    assert fused.fused(torch.zeros(3)) is None


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(list(LAST_DIGIT)), st.booleans(), st.booleans())
def test_sums_of_rows_agree_with_torch(kernels, seed, dtype, onto, every):
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (int(rng.integers(1, 4)), int(rng.integers(1, 9)))
    # Some heads out of more, whose rows lie apart, but for the second.
    target, first, second = (
        torch.rand(n, shape[0] + more, shape[1], generator=generator).to(dtype)[:, more:]
        for n, more in ((9, int(rng.integers(0, 3))), (7, int(rng.integers(0, 3))), (5, 0))
    )
    given = [
        (rng.integers(0, 9, n), rng.integers(0, have, n))
        for n, have in ((int(rng.integers(0, 12)), 7), (int(rng.integers(0, 6)), 5))
    ]
    sums = Sums.of(CPU, *given, every=9 if every else None)
    if sums is None:
        return
    results = []
    for found in (None, kernels):
        everything = target.new_zeros(9, shape[0] + 2, shape[1])
        result = everything[:, 1:-1].copy_(target)
        with pytest.MonkeyPatch.context() as patch:
            use(patch, found)
            (sums.add if onto else sums.write)(result, first, second)
        results.append(everything.double())
    assert (results[0] - results[1]).abs().max() <= LAST_DIGIT[dtype] * 8


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(list(LAST_DIGIT)), st.integers(0, 8))
def test_rows_are_moved_to_where_torch_moves_them(kernels, seed, dtype, moved):
    rng = np.random.default_rng(seed)
    to, taken = (rows(rng.permutation(9)[:moved], CPU), rows(rng.integers(0, 6, moved), CPU))
    results = []
    for found in (None, kernels):
        target, source = (torch.arange(n * 12.0).view(n, 4, 3).to(dtype) for n in (9, 6))
        with pytest.MonkeyPatch.context() as patch:
            use(patch, found)
            move(target[:, 2:], to, source[:, 1:3], taken)
        results.append(target)
    assert torch.equal(*results)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 40), st.integers(1, 3), st.integers(1, 20), st.integers(0, 2**31),
    st.sampled_from(list(LAST_DIGIT)), st.floats(0.1, 60),
)  # fmt: skip
def test_merges_agree_with_torch(kernels, queries, heads, size, seed, dtype, spread):
    generator = torch.Generator().manual_seed(seed)
    pack = torch.rand(queries + 3, heads + 2, size, generator=generator).to(dtype)
    part = torch.rand(queries, heads, size, generator=generator).to(dtype)
    lse = torch.randn(heads, queries + 3, generator=generator) * spread
    part_lse = torch.randn(queries, heads, generator=generator).t() * spread
    lse[0, 3] = -torch.inf  # has seen no key yet
    results = []
    for found in (None, kernels):
        out, sums = pack.clone(), lse.clone()
        with pytest.MonkeyPatch.context() as patch:
            use(patch, found)
            together = merging.merge(out[3:, 1:-1], sums[:, 3:], part, part_lse)
        results.append((out.double(), sums, together))
    (out, sums, together), (other, other_sums, other_together) = results
    # Each takes e to a difference of log-sum-exps, which is off by their last digit.
    largest = max(x[x.isfinite()].abs().max().item() for x in (lse, part_lse))
    assert (out - other).abs().max() <= LAST_DIGIT[dtype] * 2 + 1.2e-7 * largest
    for untouched in ((slice(3),), (slice(None), 0), (slice(None), -1)):
        assert torch.equal(out[untouched], other[untouched])
    for one, another in ((sums, other_sums), (together, other_together)):
        torch.testing.assert_close(one, another, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_whole_runs_agree_with_one_process(kernels, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    lengths, cp = random_lengths(rng, most_tokens=30), 2 + seed
    heads = (8, 4, 8)
    inputs = draw(rng, int(lengths.sum()), heads)
    true = alone(ORACLE, lengths, *inputs)
    used = []

    def counted(*tensors):
        assert all(map(fused.whole_rows, tensors))
        used.append(not all(x.is_contiguous() for x in tensors))
        return kernels

    for module in ("rows", "merging"):
        monkeypatch.setattr(f"executor.{module}.fused", counted)
    plans = all_plans(rng, lengths, cp)
    plans += [
        replace(scattered_plan(rng, lengths, cp, exchange, overlap=True), head_chunks=2)
        for exchange in sorted(LANDING)
    ]
    for plan in plans:
        found, _ = emulated(plan, *(x.float() for x in inputs))
        for one, expected in zip(found, true, strict=True):
            assert relative_error(one, expected) <= 1e-5, f"{plan.strategy} by {plan.exchange}"
    assert len(used) > 20
    assert sum(used) > 5


ROWS = {"rows": "*i64", "splits": "*i64", "sources": "*i64", "taken": "*i64"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Triton announces a change of a default
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(
    ("name", "tensors", "constants"),
    [
        ("_sum_rows", ("target", "first", "second"), {"onto": True, "block": 1024}),
        ("_sum_rows", ("target", "first"), {"onto": False, "block": 1024}),  # second in float32
        ("_copy_rows", ("target", "source"), {"block": 1024}),
        (
            "_merge",
            ("out", "part"),
            {"lse_query": 1, "part_query": 1, "block": 16, "elements": 128},
        ),
    ],
)
def test_they_compile_for_an_h100_and_read_16_bytes_at_a_time(
    dtype, name, tensors, constants, tmp_path, monkeypatch
):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from executor.kernels import triton_rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(triton_rows, name)
    floats = dict.fromkeys(("lse", "part_lse", "together", "second"), "*fp32")
    given = {**ROWS, **floats, **dict.fromkeys(tensors, f"*{dtype}")}
    signature = {
        x: "constexpr" if x in constants else given.get(x, "i32") for x in kernel.arg_names
    }
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, x in enumerate(kernel.arg_names)
        if x in tensors or x in ("width", "size") or x.endswith("_row")
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"]
    moves = [line for line in compiled.asm["ptx"].splitlines() if ".global." in line]
    assert sum("v4.b32" in line for line in moves) >= len(tensors)
