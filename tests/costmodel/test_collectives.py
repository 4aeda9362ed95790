import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import ProfileError, Source, load_profile
from costmodel.collectives import COLLECTIVES, CollectiveModel
from costmodel.fit_collectives import fit_collectives, monotone
from costmodel.tables import collective_table

GPUS = ["a100-sxm", "h100-sxm", "h200-sxm"]
TB = 10**12

names = st.sampled_from(COLLECTIVES)
gpus = st.sampled_from(GPUS)
sizes = st.one_of(st.integers(0, TB), st.integers(0, 2**20))


@given(gpus, names, st.integers(2, 64), sizes, sizes)
def test_time_is_positive_finite_and_never_falls_with_bytes(
    gpu: str, name: str, ranks: int, one: int, other: int
) -> None:
    profile = load_profile(gpu)
    less, more = sorted((one, other))
    short = profile.collective_us(name, less, ranks)
    long = profile.collective_us(name, more, ranks)
    assert 0 < short.us <= long.us < np.inf


@given(gpus, names, sizes)
def test_one_rank_has_nobody_to_talk_to(gpu: str, name: str, size: int) -> None:
    profile = load_profile(gpu)
    assert profile.collective_us(name, size, 1).us == 0
    assert profile.all_to_all_v_us(size, 1).us == 0


@given(gpus, names, st.integers(1, 20), st.lists(sizes, max_size=8))
@settings(max_examples=50)
def test_many_messages_at_once_take_what_each_takes_alone(
    gpu: str, name: str, ranks: int, messages: list[int]
) -> None:
    profile = load_profile(gpu)
    times, source = profile.collective_us_array(name, messages, ranks)
    alone = [profile.collective_us(name, size, ranks) for size in messages]
    np.testing.assert_allclose(times, [estimate.us for estimate in alone], rtol=1e-12)
    assert all(estimate.source <= source for estimate in alone)


@pytest.mark.parametrize("gpu", GPUS)
def test_measured_points_are_predicted_as_measured(gpu: str) -> None:
    profile = load_profile(gpu)
    table = collective_table(gpu)
    large = table[table["bytes"] > 65536]
    for row in large.itertuples():
        estimate = profile.collective_us(row.collective, row.bytes, row.num_gpus)
        assert estimate.source == Source.MEASURED
        # Only noise that falls with the bytes is moved.
        assert estimate.us == pytest.approx(row.us, rel=0.13)


@pytest.mark.parametrize(
    ("size", "ranks", "source"),
    [
        (2**20, 8, Source.MEASURED),
        (3 * 2**20, 8, Source.INTERPOLATED),
        (2**20, 6, Source.INTERPOLATED),
        (2**20, 3, Source.INTERPOLATED),
        (2**31, 8, Source.EXTRAPOLATED),
        (2**31, 6, Source.EXTRAPOLATED),
        (100, 8, Source.EXTRAPOLATED),
        (2**20, 16, Source.REPORTED),
    ],
)
def test_an_estimate_says_how_far_it_is_from_what_was_measured(
    size: int, ranks: int, source: Source
) -> None:
    assert load_profile("h100-sxm").collective_us("all_gather", size, ranks).source == source


def test_a_larger_nvlink_domain_than_was_measured_is_extrapolated() -> None:
    profile = load_profile("h100-sxm")
    eight = profile.collective_us("all_gather", 2**28, 8)
    sixteen = profile.collective_us("all_gather", 2**28, 16, ranks_per_node=16)
    assert sixteen.source == Source.EXTRAPOLATED
    # A rank receives 15/16 of S instead of 7/8, and there are more steps.
    assert eight.us * 15 / 14 < sixteen.us < eight.us * 1.2


@pytest.mark.parametrize("name", ["all_gather", "reduce_scatter", "all_to_all"])
def test_an_unmeasured_group_lies_between_its_neighbours(name: str) -> None:
    profile = load_profile("a100-sxm")
    times = [profile.collective_us(name, 2**28, ranks).us for ranks in (4, 5, 6, 7, 8)]
    assert times == sorted(times)


def test_a_ring_step_takes_what_a_pair_exchanging_as_much_takes() -> None:
    profile = load_profile("h200-sxm")
    step = profile.collective_us("send_recv", 2**24, 8)
    assert step.us == profile.collective_us("all_to_all", 2**25, 2).us
    assert step.source == Source.EXTRAPOLATED


def test_an_uneven_all_to_all_takes_what_its_busiest_rank_needs() -> None:
    profile = load_profile("h100-sxm")
    # In an even all-to-all with buffers of S, a rank sends S * 7 / 8 to the others.
    even = profile.collective_us("all_to_all", 2**24, 8)
    uneven = profile.all_to_all_v_us(2**24 * 7 / 8, 8)
    assert uneven.us == even.us
    assert uneven.source == Source.EXTRAPOLATED


def test_the_papers_all_gather_takes_what_the_paper_measured() -> None:
    # CP 8, 32 heads of 128, 128k tokens, bf16 K and V: 5.4 ms in the paper's breakdown.
    total = 131072 * 32 * 128 * 2 * 2
    assert load_profile("h100-sxm").collective_us("all_gather", total, 8).us == pytest.approx(
        5400, rel=0.05
    )


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=30))
def test_isotonic_regression_never_falls_and_leaves_rising_values_alone(
    values: list[float],
) -> None:
    result = monotone(values)
    assert (np.diff(result) >= 0).all()
    assert min(values) <= result[0]
    assert result[-1] <= max(values)
    np.testing.assert_array_equal(monotone(sorted(values)), sorted(values))


def test_a_known_curve_is_found_again() -> None:
    points = [2.0**power for power in range(9, 30)]
    rows = [("all_gather", 8, s, 10 + 2.5e-6 * s + 0.004 * s**0.5) for s in points]
    (curve,) = fit_collectives(rows).curves
    assert curve.alpha_us == pytest.approx(10, rel=1e-3)
    assert curve.beta_us_per_byte == pytest.approx(2.5e-6, rel=1e-3)
    assert curve.gamma_us_per_root_byte == pytest.approx(0.004, rel=1e-3)
    # Far beyond the points the curve is what is left.
    assert curve.us(1e12) == pytest.approx(10 + 2.5e6 + 0.004 * 1e6, rel=1e-3)


def test_one_slow_outlier_does_not_bend_the_curve() -> None:
    points = [2.0**power for power in range(9, 30)]
    rows = [("all_gather", 8, s, 10 + 2.5e-6 * s) for s in points]
    rows[4] = (*rows[4][:3], 30.0)
    (curve,) = fit_collectives(rows).curves
    assert curve.us(points[4]) == pytest.approx(10, rel=0.05)
    assert curve.alpha_us == pytest.approx(10, rel=0.05)


def test_repeated_measurements_of_a_size_count_by_their_median() -> None:
    rows = [("all_gather", 2, 1024.0, us) for us in (5.0, 6.0, 50.0)]
    assert fit_collectives(rows).curves[0].times_us == (6.0,)


@pytest.mark.parametrize("us", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_measurements_are_refused(us: float) -> None:
    with pytest.raises(ProfileError, match=f"took {us} us for 1024 bytes"):
        fit_collectives([("all_gather", 2, 1024, us)])


def test_fitting_nothing_is_refused() -> None:
    with pytest.raises(ProfileError, match="no measured collectives"):
        fit_collectives([])


def test_a_collective_that_a_profile_lacks_is_named() -> None:
    with pytest.raises(ProfileError, match="no measurement of all_gather"):
        CollectiveModel(()).estimate("all_gather", 1.0, 2)
