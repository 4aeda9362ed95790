"""The model object: parameters, sources, JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from costmodel import attention_kernel as kernel
from costmodel.attention import COEFFICIENTS, AttentionFit, AttentionModel, Coefficients
from costmodel.attention_backward import TILE_RATIO, with_reported_backward
from costmodel.attention_sampled import Sampled
from costmodel.errors import ProfileError
from costmodel.estimate import Source

VALUES = (
    10.5,
    1.54,
    1.43,
    2.33,
    0.115,
    0.933,
    2.86,
    1.77,
    0.182,
    3760.0,
    0.04,
    28.7,
    0.04,
    0.25,
    3.6,
)
SAMPLED = Sampled.of(
    (np.full(batch, length), np.full(batch, length), q_heads, kv_heads)
    for batch in (1, 4)
    for length in (128, 4096)
    for q_heads, kv_heads in ((8, 8), (32, 8))
)


def forward(head_dim: int, sampled: Sampled | None = SAMPLED) -> AttentionFit:
    tile_q = 192 if head_dim == 64 else 128
    return AttentionFit(
        "forward", head_dim, tile_q, 128, Coefficients(*VALUES), Source.MEASURED, sampled
    )


MODEL = with_reported_backward(
    AttentionModel("flash-attn-3", 132, True, True, (forward(64), forward(128)))
)


def us(q_lens, k_lens, parameters):
    q, k = np.asarray(q_lens, np.int64), np.asarray(k_lens, np.int64)
    return kernel.attention_us(q, k, np.array([0, len(q)], np.int64), parameters)[0]


def test_json_gives_the_same_model_back():
    document = json.loads(json.dumps(MODEL.to_json()))
    assert AttentionModel.from_json(document) == MODEL


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("sms",), 0, "sms is 0, not in 1..4096"),
        (("sms",), None, "sms is null, not a whole number"),
        (("kernel",), "", 'kernel is "", not a text'),
        (("fits",), [], "has no forward fit"),
        (("surprise",), 1, "surprise is not a field"),
        (("fits", 0, "direction"), "sideways", "'sideways'; it must be one of: forward, backward"),
        (("fits", 0, "head_dim"), 0, "head_dim is 0"),
        (("fits", 0, "coefficients", "kv_tile_us"), -1.0, "kv_tile_us is -1, not in 0"),
        (("fits", 0, "coefficients", "tail"), float("nan"), "tail is nan, not a finite"),
        (("fits", 0, "coefficients", "warp"), 1.0, "warp is not a field"),
        (("fits", 0, "sampled", "tokens"), [9, 1], "tokens is [9, 1], not [least, most]"),
        (("fits", 0, "sampled", "equal"), {"8-8": {"128": [1]}}, "heads are Q:KV"),
        (("fits", 1, "head_dim"), 64, "two fits for forward, head size 64"),
    ],
)
def test_bad_json_is_refused_with_the_field_and_its_value(path, value, message):
    document = MODEL.to_json()
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ProfileError) as error:
        AttentionModel.from_json(document)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_coefficient_is_refused():
    for name in set(COEFFICIENTS) - {"empty_tile_us"}:
        document = MODEL.to_json()
        del document["fits"][0]["coefficients"][name]
        with pytest.raises(ProfileError, match=f"{name} is missing"):
            AttentionModel.from_json(document)


def test_empty_blocks_cost_nothing_in_files_that_do_not_name_them():
    document = MODEL.to_json()
    assert all("empty_tile_us" not in fit["coefficients"] for fit in document["fits"])
    assert AttentionModel.from_json(document) == MODEL
    document["fits"][3]["coefficients"]["empty_tile_us"] = 0.45
    read = AttentionModel.from_json(json.loads(json.dumps(document)))
    assert read.fits[3].coefficients.empty_tile_us == 0.45
    assert read.to_json() == document
    lens = [4096, *[64] * 100]
    for direction, costs in (("forward", False), ("backward", True)):
        old, new = (m.parameters(8, 8, 128, direction) for m in (MODEL, read))
        assert (us(lens, lens, new) > us(lens, lens, old)) == costs


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((32, 5, 128, "forward"), "32 query heads are not a multiple of 5"),
        ((0, 1, 128, "forward"), "0:1 heads are not in"),
        ((8, 8, 0, "forward"), "head size 0 is not in"),
        ((8, 8, 128, "sideways"), "direction 'sideways' is not known for flash-attn-3"),
    ],
)
def test_impossible_shapes_are_refused(heads, message):
    with pytest.raises(ProfileError, match=message):
        MODEL.parameters(*heads)


def test_a_model_without_backward_says_what_it_knows():
    only_forward = AttentionModel("flash-attn-3", 132, True, True, (forward(128),))
    with pytest.raises(ProfileError, match=r"'backward' is not known .* known: forward"):
        only_forward.parameters(8, 8, 128, "backward")


def test_an_unfitted_head_size_lies_between_its_neighbours_and_is_extrapolated():
    _, source = MODEL.fit(96, "forward")
    assert source == Source.EXTRAPOLATED
    assert MODEL.fit(128, "forward")[1] == Source.MEASURED
    times = [
        us([16384], [16384], MODEL.parameters(8, 8, dim, "forward")) for dim in (112, 128, 256)
    ]
    assert times == sorted(times)


def test_training_calls_take_no_longer_than_the_engines_calls():
    for q_heads, kv_heads, lens in ((32, 32, [4096] * 4), (8, 1, [1024] * 8), (64, 8, [64] * 99)):
        engine = us(
            lens, lens, MODEL.parameters(q_heads, kv_heads, 128, "forward", cache_write=True)
        )
        training = MODEL.parameters(q_heads, kv_heads, 128, "forward", cache_write=False)
        assert us(lens, lens, training) < engine


def test_backward_of_a_long_document_takes_the_reported_ratio():
    length = [131072]
    f = us(length, length, MODEL.parameters(32, 32, 128, "forward", cache_write=False))
    b = us(length, length, MODEL.parameters(32, 32, 128, "backward"))
    assert b / f == pytest.approx(TILE_RATIO, rel=0.02)


def test_backward_efficiency_falls_faster_behind_long_prefixes():
    def ratio(q_lens, k_lens):
        f = us(q_lens, k_lens, MODEL.parameters(32, 32, 128, "forward", cache_write=False))
        return us(q_lens, k_lens, MODEL.parameters(32, 32, 128, "backward")) / f

    assert ratio([256] * 64, [4096] * 64) > 1.1 * ratio([4096] * 4, [4096] * 4)


@pytest.mark.parametrize(
    ("q_lens", "k_lens", "heads", "expected"),
    [
        ([4096], [4096], (32, 8), Source.MEASURED),
        ([4096] * 4, [4096] * 4, (8, 8), Source.MEASURED),
        ([4096, 0], [4096, 0], (8, 8), Source.MEASURED),
        ([], [], (8, 8), Source.MEASURED),
        ([1000] * 3, [1000] * 3, (16, 8), Source.INTERPOLATED),
        ([8192], [8192], (32, 8), Source.EXTRAPOLATED),
        ([64], [64], (32, 8), Source.EXTRAPOLATED),
        ([4096], [4096], (64, 8), Source.EXTRAPOLATED),
        ([1000] * 5, [1000] * 5, (32, 8), Source.EXTRAPOLATED),
        ([1000], [1001], (32, 8), Source.EXTRAPOLATED),
        ([1000, 999], [1000, 999], (32, 8), Source.EXTRAPOLATED),
    ],
)
def test_source_says_how_far_a_call_is_from_what_was_measured(q_lens, k_lens, heads, expected):
    assert MODEL.source(q_lens, k_lens, *heads, 128, "forward") == expected


def test_source_of_other_heads_masks_and_directions():
    call = ([4096], [4096], 32, 8)
    assert MODEL.source(*call, 96, "forward") == Source.EXTRAPOLATED
    assert MODEL.source(*call, 128, "forward", causal=False) == Source.EXTRAPOLATED
    assert MODEL.source(*call, 128, "backward") == Source.REPORTED
    unknown = replace(MODEL, fits=(forward(128, sampled=None),))
    assert unknown.source(*call, 128, "forward") == Source.EXTRAPOLATED
