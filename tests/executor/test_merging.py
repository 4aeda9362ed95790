"""Outputs over two sets of keys merge into the output over both, in place and rounded once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.merging import merge, merge_rows
from executor.rows import Rows

ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-6}


def attended(scores, values):
    """The output [q, Hq, D] and log-sum-exp [Hq, q] of scores [q, Hq, k], values [k, Hq, D]."""
    out = torch.einsum("qhk,khd->qhd", scores.softmax(-1), values)
    return out, scores.logsumexp(-1).t().contiguous()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 9), st.integers(1, 20), st.integers(0, 2**31), st.floats(0.1, 80),
    st.sampled_from(list(ROUNDING)),
)  # fmt: skip
def test_two_parts_merge_into_attention_to_all_keys(split, more, seed, spread, dtype):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(5, 3, split + more, generator=generator, dtype=torch.float64) * spread
    values = torch.randn(split + more, 3, 4, generator=generator, dtype=torch.float64)
    whole, whole_lse = attended(scores, values)
    first, second = (
        [x.to(dtype) for x in attended(scores[..., part], values[part])]
        for part in (slice(0, split), slice(split, None))
    )
    out, lse = (x.clone() for x in first)
    together = merge(out, lse, *second)
    tolerance = ROUNDING[dtype] * max(spread, 1) * 10
    assert (out - whole).abs().max() <= tolerance * values.abs().max()
    assert (lse - whole_lse).abs().max() <= tolerance * whole_lse.abs().max().clamp(min=1)
    assert torch.equal(lse, together)
    assert together.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_merged_in_float32_and_rounded_once(dtype):
    a, b = torch.randn(2, 40, 3, 8).to(dtype)
    a_lse, b_lse = torch.randn(2, 3, 40)
    total = torch.logaddexp(a_lse, b_lse)
    weights = [(x - total).exp().t().unsqueeze(-1) for x in (a_lse, b_lse)]
    exact = (a.double() * weights[0] + b.double() * weights[1]).to(dtype)
    pack = torch.zeros(50, 3, 8, dtype=dtype)
    out = pack[10:]
    out.copy_(a)
    merge(out, a_lse.clone(), b, b_lse)
    # A sum in float32 that lies next to a midpoint may round the other way, if hardly ever.
    assert (out != exact).float().mean() <= 0.01
    assert (out.double() - exact.double()).abs().max() <= 2 * torch.finfo(dtype).eps * 4
    assert not pack[:10].any()


@pytest.mark.parametrize("rows", [slice(2, 5), torch.tensor([6, 0, 3])], ids=["slice", "index"])
def test_only_the_rows_named_are_merged(rows: Rows):
    out, part = torch.randn(7, 2, 4), torch.randn(3, 2, 4)
    lse, part_lse = torch.randn(2, 7), torch.randn(2, 3)
    lse[:, rows] = lse[:, rows].index_fill(1, torch.tensor([1]), -torch.inf)
    given = out.clone(), lse.clone()
    merge_rows(out, lse, rows, part, part_lse)
    alone, alone_lse = given[0][rows].clone(), given[1][:, rows].clone()
    merge(alone, alone_lse, part, part_lse)
    assert torch.equal(out[rows], alone)
    assert torch.equal(lse[:, rows], alone_lse)
    # What has seen no key yet has no weight.
    assert torch.allclose(out[rows][1], part[1])
    others = torch.ones(7, dtype=torch.bool)
    others[rows] = False
    assert torch.equal(out[others], given[0][others])
    assert torch.equal(lse[:, others], given[1][:, others])
