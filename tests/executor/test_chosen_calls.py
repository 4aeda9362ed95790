"""The calls chosen on a GPU tell what empty blocks take; times are invented, so none is needed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel.attention import AttentionFit, AttentionModel
from costmodel.attention_prior import PRIOR
from costmodel.calibrated import traits_of
from costmodel.estimate import Source
from costmodel.fit_attention import fit_attention
from executor.calibration.attention import planned_calls
from executor.calibration.request import EFFORTS
from executor.calibration.selection import LOPSIDED_EVERY, SHORT_SEGMENTS, choose
from tests.costmodel.calibration_points import timed

KERNEL = "torch-varlen"
BACKWARD = replace(
    PRIOR, launch_us=16.0, kv_tile_us=4.0, query_tile_us=3.5, query_row_us=8.0, tail=0.8
)
NOISE = 0.03


def is_lopsided(call):
    """Whether a call is one long segment beside many equal ones."""
    rising = sorted(call.q_lens)
    many = len(rising) - 1
    return (
        call.q_lens == call.k_lens
        and SHORT_SEGMENTS[0] <= many <= SHORT_SEGMENTS[1]
        and rising[0] == rising[-2] < rising[-1]
    )


@settings(deadline=None)
@given(st.integers(0, 240), st.floats(1e6, 1e11), st.sampled_from([64, 128]))
def test_every_sixth_call_is_lopsided_within_limits_and_a_first_part_is_a_smaller_choice(
    count, most_pairs, head_dim
):
    plain = choose(count, head_dim, most_pairs, 6e10)
    calls = choose(count, head_dim, most_pairs, 6e10, lopsided=True)
    assert len(set(calls)) == len(plain) == count
    sixth = calls[LOPSIDED_EVERY - 1 :: LOPSIDED_EVERY]
    assert all(map(is_lopsided, sixth))
    assert [call for call in calls if call not in sixth] == plain[: count - len(sixth)]
    assert max((call.pairs for call in sixth), default=0) <= 2.5 * most_pairs
    assert calls[: count // 2] == choose(count // 2, head_dim, most_pairs, 6e10, lopsided=True)
    little = choose(count, head_dim, most_pairs, 2e9, lopsided=True)
    assert all(call.tensor_bytes() <= 2e9 for call in little)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("block_us", [0.4, 0.9])
def test_calls_planned_for_a_gpu_tell_what_an_empty_block_takes(
    monkeypatch, full, head_dim, block_us
):
    monkeypatch.setattr("executor.calibration.attention.device_memory", lambda _: 140e9)
    effort = EFFORTS["cuda", full]
    calls = planned_calls(effort, head_dim, torch.device("cuda"), effort.call_us * 5e5)
    truth = model(head_dim, block_us)
    wanted = truth.fit(head_dim, "backward")[0].coefficients.empty_tile_us
    forward, backward = (timed(calls, d, truth) for d in ("forward", "backward"))
    random = np.random.default_rng(0)
    off = []
    for _ in range(12):
        slower = random.lognormal(0.0, NOISE, len(calls)).tolist()
        noisy = [replace(c, us=c.us * s) for c, s in zip(backward, slower, strict=True)]
        found = fit_attention(
            [*forward[:12], *noisy], kernel_name=KERNEL, sms=132, traits=traits_of(KERNEL)
        )
        fit = found.fit(head_dim, "backward")[0].coefficients
        off.append(fit.empty_tile_us / wanted - 1)
        # What the fewer ordinary calls tell is told as well as it was.
        assert fit.kv_tile_us == pytest.approx(4.0, rel=0.05)
    assert np.abs(off).max() <= 0.25


def test_a_cpu_measures_no_lopsided_calls():
    effort = EFFORTS["cpu", True]
    calls = planned_calls(effort, 128, torch.device("cpu"), 1e9)
    assert not any(map(is_lopsided, calls))


@pytest.mark.parametrize("head_dim", [64, 128])
def test_lopsided_calls_do_not_lengthen_a_calibration(head_dim):
    truth, times = model(head_dim, 0.9), []
    for lopsided in (False, True):
        calls = choose(96, head_dim, 1e10, 6e10, lopsided=lopsided)
        both = (timed(calls, direction, truth) for direction in ("forward", "backward"))
        times.append(sum(call.us for one in both for call in one))
    assert times[1] <= 1.03 * times[0]


def model(head_dim, block_us):
    """A GPU's kernel with this time of an empty block of 128 keys."""
    tile_q, tile_k = traits_of(KERNEL).tile(head_dim)
    backward = replace(BACKWARD, empty_tile_us=block_us * tile_k / 128)
    forward = replace(PRIOR, empty_tile_us=0.0)
    return AttentionModel(
        KERNEL,
        132,
        packs_gqa=False,
        splits_keys=False,
        fits=(
            AttentionFit("forward", head_dim, tile_q, tile_k, forward, Source.MEASURED, None),
            AttentionFit("backward", head_dim, tile_q, tile_k, backward, Source.MEASURED, None),
        ),
    )
