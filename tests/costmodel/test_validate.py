"""Accuracy on points left out of the fit, held to the targets that the project promises."""

import numpy as np
import pytest

from costmodel import ProfileError, load_profile
from costmodel.held_out import HeldOutError
from costmodel.validate import validate

GPUS = ("a100-sxm", "h100-sxm", "h200-sxm")


@pytest.fixture(scope="module")
def errors() -> dict[str, list[HeldOutError]]:
    return {gpu: validate(gpu) for gpu in GPUS}


def mean(found: list[HeldOutError]) -> float:
    """Return the mean error over all the points of `found`."""
    assert found
    return float(np.average([e.mean for e in found], weights=[e.points for e in found]))


def test_collectives_above_64_kb_are_within_6_percent_of_a_size_left_out(
    errors: dict[str, list[HeldOutError]],
) -> None:
    assert (
        0.01
        < mean(
            [
                e
                for gpu in GPUS
                for e in errors[gpu]
                if e.what == "all collectives"
                and e.bucket == "above 64 KB"
                and e.method == "one size left out at a time"
            ]
        )
        <= 0.06
    )


@pytest.mark.parametrize("name", ["all_gather", "reduce_scatter", "all_to_all"])
def test_each_collective_is_within_6_percent_when_the_largest_size_is_left_out_too(
    errors: dict[str, list[HeldOutError]], name: str
) -> None:
    methods = ("one size left out at a time", "the largest size left out")
    assert (
        mean(
            [
                e
                for gpu in GPUS
                for e in errors[gpu]
                if e.what == name and e.bucket == "above 64 KB" and e.method in methods
            ]
        )
        <= 0.06
    )


def test_an_unmeasured_group_size_is_within_7_percent_above_64_kb(
    errors: dict[str, list[HeldOutError]],
) -> None:
    assert (
        mean(
            [
                e
                for gpu in GPUS
                for e in errors[gpu]
                if e.what == "all collectives"
                and e.bucket == "above 64 KB"
                and e.method == "the middle group size left out"
            ]
        )
        <= 0.07
    )


@pytest.mark.parametrize("gpu", GPUS)
def test_attention_is_within_5_percent_of_calls_left_out(
    errors: dict[str, list[HeldOutError]], gpu: str
) -> None:
    (error,) = (
        e
        for e in errors[gpu]
        if e.what == "attention forward, head size 128"
        and e.bucket == "from 64 tokens"
        and e.method == "5 folds of the calls"
    )
    assert error.mean <= 0.05
    assert abs(error.bias) <= 0.02


@pytest.mark.parametrize("gpu", GPUS)
def test_longer_sequences_than_were_fitted_are_within_10_percent(
    errors: dict[str, list[HeldOutError]], gpu: str
) -> None:
    found = [e for e in errors[gpu] if not e.inside and e.what.startswith("attention")]
    assert mean(found) <= 0.10


@pytest.mark.parametrize("gpu", GPUS)
def test_a_profile_carries_the_errors_that_validation_finds(
    errors: dict[str, list[HeldOutError]], gpu: str
) -> None:
    for carried in load_profile(gpu).provenance.held_out:
        (found,) = (
            e
            for e in errors[gpu]
            if (e.what, e.method, e.bucket) == (carried.what, carried.method, carried.bucket)
        )
        assert found.mean == pytest.approx(carried.mean, abs=2e-4)


def test_validation_is_reproducible(errors: dict[str, list[HeldOutError]]) -> None:
    assert validate("a100-sxm") == errors["a100-sxm"]


def test_a_gpu_without_tables_is_refused() -> None:
    with pytest.raises(
        ProfileError, match=r"no measured tables of 'h100'; did you mean 'h100-sxm'"
    ):
        validate("h100")


def test_errors_are_summed_up_signed_and_absolute() -> None:
    summary = HeldOutError.of([0.1, -0.2, 0.0, 0.3], what="x", method="y", inside=True)
    assert (summary.points, summary.mean, summary.worst) == (4, 0.15, 0.3)
    assert summary.bias == 0.05
    assert summary.p50 == 0.15
