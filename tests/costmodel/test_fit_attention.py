"""Fitting: recovery, robustness, held-out accuracy on the shipped tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from costmodel.attention import AttentionFit, AttentionModel, Coefficients
from costmodel.attention_calls import MeasuredCall, calls_from_table
from costmodel.errors import ProfileError
from costmodel.estimate import Source
from costmodel.fit_attention import cross_validate, fit_attention, predict_us, shuffled
from costmodel.tables import attention_table
from tests.costmodel.calibration_points import timed

TRUTH = AttentionModel(
    "flash-attn-3",
    132,
    packs_gqa=True,
    splits_keys=True,
    fits=tuple(
        AttentionFit(
            direction,
            128,
            128,
            128,
            Coefficients(
                launch_us=7.0 * scale,
                kv_tile_us=1.2 * scale,
                query_tile_us=1.1 * scale,
                query_row_us=1.6 * scale,
                tail=0.2,
                critical_scale=0.95,
                split_us=2.5,
                split_row_us=1.8,
                throttle=0.1,
                throttle_after_us=3000.0,
                pack_penalty=0.03,
                l2_mb=26.0,
                row_spill_us_per_mb=0.05,
                cache_spill_us_per_mb=0.3,
                cache_write_us=3.0,
            ),
            Source.MEASURED,
            None,
        )
        for direction, scale in (("forward", 1.0), ("backward", 2.9))
    ),
)


def invented_calls(count: int, seed: int, direction: str = "forward", noise: float = 0.02):
    """Calls with prefixes and mixed lengths whose times `TRUTH` gives, with noise."""
    random = np.random.default_rng(seed)
    calls = []
    for _ in range(count):
        segments = int(random.integers(1, 9))
        q_lens = np.exp(random.uniform(np.log(64), np.log(8192), segments)).astype(int).tolist()
        prefixes = random.integers(0, 16384, segments) * (random.random(segments) < 0.5)
        k_lens = [q + int(p) for q, p in zip(q_lens, prefixes, strict=True)]
        kv_heads = int(random.choice([1, 4, 8]))
        q_heads = kv_heads * int(random.choice([1, 4, 8]))
        calls.append(MeasuredCall(q_lens, k_lens, q_heads, kv_heads, 128, direction, 1.0))
    factors = np.exp(noise * random.standard_normal(count)).tolist()
    return [
        replace(call, us=call.us * factor)
        for call, factor in zip(timed(calls, direction, TRUTH), factors, strict=True)
    ]


def fit(calls):
    return fit_attention(calls, kernel_name="flash-attn-3", sms=132)


def errors(model, calls):
    return predict_us(model, calls) / predict_us(TRUTH, calls) - 1


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_fit_to_mixed_calls_with_prefixes_recovers_the_times(direction):
    known = invented_calls(100, 1, direction)
    if direction == "backward":
        known += invented_calls(30, 2)
    unseen = invented_calls(200, 3, direction)
    assert np.abs(errors(fit(known), unseen)).mean() < 0.02


def test_two_dozen_calls_are_enough_for_five_percent():
    unseen = invented_calls(200, 3)
    for seed in range(4):
        assert np.abs(errors(fit(invented_calls(24, seed)), unseen)).mean() < 0.05


@pytest.mark.parametrize("count", [24, 100])
def test_slow_outliers_move_predictions_by_less_than_two_percent(count):
    unseen = invented_calls(200, 3)
    for seed in range(4):
        calls = invented_calls(count, seed)
        spoilt = [
            MeasuredCall(
                c.q_lens, c.k_lens, c.q_heads, c.kv_heads, 128, c.direction, c.us * (3 - i % 2)
            )
            if i % 10 == 3
            else c
            for i, c in enumerate(calls)
        ]
        moved = predict_us(fit(spoilt), unseen) / predict_us(fit(calls), unseen) - 1
        assert np.abs(moved).mean() < 0.02


def test_the_order_of_the_calls_hardly_matters():
    calls, unseen = invented_calls(60, 1), invented_calls(50, 3)
    there, back = predict_us(fit(calls), unseen), predict_us(fit(calls[::-1]), unseen)
    np.testing.assert_allclose(there, back, rtol=1e-3)


@pytest.mark.parametrize(
    ("gpu", "head_dim", "mean", "p90"),
    [
        ("a100-sxm", 128, 0.025, 0.060),
        ("h100-sxm", 128, 0.040, 0.090),
        ("h200-sxm", 128, 0.036, 0.080),
        ("h100-sxm", 64, 0.045, 0.100),
        ("h200-sxm", 64, 0.045, 0.100),
    ],
)
def test_held_out_errors_on_the_shipped_tables(gpu, head_dim, mean, p90):
    table = attention_table(gpu)
    table = table[table["head_dim"] == head_dim]
    error = cross_validate(table).loc[lambda row: row["seq_len"] >= 64, "error"]
    assert error.abs().mean() <= mean
    assert error.abs().quantile(0.9) <= p90
    assert abs(error.mean()) <= 0.02


def test_sequences_eight_times_longer_than_any_fitted_are_predicted_to_eight_percent():
    table = attention_table("h100-sxm").query("head_dim == 128")
    model = fit_attention(table.query("seq_len <= 2048"))
    longer = calls_from_table(table.query("seq_len == 16384"))
    error = predict_us(model, longer) / np.array([call.us for call in longer]) - 1
    assert np.abs(error).mean() < 0.08


def test_a_table_is_dealt_into_folds_the_same_way_each_time():
    table = attention_table("a100-sxm").iloc[::20]
    pd.testing.assert_frame_equal(cross_validate(table), cross_validate(table))
    assert sorted(shuffled(1000, 7)) == list(range(1000))
    assert list(shuffled(5, 0)) != list(shuffled(5, 1))


def test_values_of_a_column_are_held_out_together():
    table = attention_table("a100-sxm").iloc[::20]
    by_length = cross_validate(table, folds=99, by="seq_len")
    assert by_length["error"].notna().all()
    assert by_length["error"].abs().mean() < 0.10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="kv_heads"), "no column 'kv_heads'"),
        (lambda t: t.drop(columns="kernel"), "no column 'kernel'"),
        (lambda t: t.assign(kernel="magic"), "attention kernel 'magic' is not known"),
        (lambda t: t.assign(gpu="abacus"), "GPU 'abacus' is not known"),
        (lambda t: t.assign(gpu=[*t["gpu"][1:], "other"]), "holds 2 gpus"),
        (lambda t: t.assign(fwd_us=[-1.0, *t["fwd_us"][1:]]), "row 0 .* took -1.0 us"),
        (lambda t: t.assign(kv_heads=3), "row 0 .* not a multiple of 3"),
        (lambda t: t.iloc[:0], "0 kernels"),
    ],
)
def test_bad_tables_are_refused(change, message):
    table = attention_table("a100-sxm").iloc[:40]
    with pytest.raises(ProfileError, match=message):
        fit_attention(change(table), kernel_name=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (([], [], 8, 8, 128, "forward", 1.0), "0 query and 0 key lengths"),
        (([5], [4], 8, 8, 128, "forward", 1.0), "5 queries and 4 keys"),
        (([0], [4], 8, 8, 128, "forward", 1.0), "0 queries and 4 keys"),
        (([5], [5, 5], 8, 8, 128, "forward", 1.0), "1 query and 2 key lengths"),
        (([5], [5], 8, 8, 128, "sideways", 1.0), "'sideways' is not one of"),
        (([5], [5], 8, 8, 128, "forward", float("nan")), "took nan us"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ProfileError, match=message):
        MeasuredCall(*call)


def test_folding_needs_enough_rows_and_a_known_column():
    table = attention_table("a100-sxm").iloc[:3]
    with pytest.raises(ProfileError, match="3 rows or values are too few for 5 folds"):
        cross_validate(table)
    with pytest.raises(ProfileError, match="no column 'colour' to fold by"):
        cross_validate(table, by="colour")


def test_a_fit_needs_the_kernel_and_forward_calls():
    with pytest.raises(ProfileError, match="needs the kernel's name"):
        fit_attention(invented_calls(10, 0))
    with pytest.raises(ProfileError, match="no forward fit"):
        fit(invented_calls(30, 0, "backward"))
